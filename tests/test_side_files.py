"""The files beside a checkpoint without which, or with damaged ones, a run does not go on."""

import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg

from clients.partition import PartitionSummary, summary
from conf.errors import ConfigError
from conf.trust import require_plain_files
from sim import manifest
from sim.clients_table import ClientsTable
from sim.manifest import UNFINISHED, CheckpointError
from sim.partition_table import PARTITION, PARTITION_SUMMARY
from sim.run_folder import CONFIG, FAILURES, METRICS, PEERS, RESULT, STUDENT, begin
from tests.federations import vector
from tests.test_checkpoint_damage import LOUD
from tests.test_checkpoints import checkpoints, committed, no_lines

LINES = {METRICS: 0, FAILURES: 0}


def shape(clients: int = 2) -> PartitionSummary:
    labels = np.arange(clients * 2) % 2
    return summary(labels, list(np.arange(clients * 2).reshape(clients, 2)), 2)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != UNFINISHED
    }


def test_a_disk_that_takes_no_more_leaves_a_folder_that_is_resumed_as_it_was(
    tmp_path: Path,
) -> None:
    begin(tmp_path, "seed: 1\n" * 1000, shape(5000))
    for name in (RESULT, STUDENT):
        (tmp_path / name).write_text("x")
    (tmp_path / PEERS).mkdir()
    (tmp_path / PEERS / "a.safetensors").write_text("x")
    before = contents(tmp_path)
    assert min(len(before[name]) for name in (CONFIG, PARTITION)) > 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            begin(tmp_path, "seed: 2\n" * 1000, shape(5000), LINES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(tmp_path) == before
    begin(tmp_path, "seed: 2\n" * 1000, shape(5000), LINES)
    assert (tmp_path / CONFIG).read_text() == "seed: 2\n" * 1000
    assert not (tmp_path / RESULT).exists()


def test_a_resume_leaves_the_partition_as_it_is(tmp_path: Path) -> None:
    begin(tmp_path, "", shape())
    before = [(tmp_path / name).stat().st_ino for name in (PARTITION, PARTITION_SUMMARY)]
    for name in (PARTITION, PARTITION_SUMMARY):
        os.utime(tmp_path / name, (1, 1))
    begin(tmp_path, "", shape(), LINES)
    after = [(tmp_path / name).stat() for name in (PARTITION, PARTITION_SUMMARY)]
    assert [(about.st_ino, about.st_mtime) for about in after] == [(ino, 1) for ino in before]


def test_the_first_commit_has_on_the_disk_what_no_run_goes_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, "", shape())
    synced: list[str] = []
    monkeypatch.setattr(manifest, "_sync", lambda path: synced.append(path.name))
    committed(tmp_path)
    for name in (CONFIG, PARTITION, PARTITION_SUMMARY):
        assert synced.count(name) == 1
        assert synced.index(name) < synced.index(f"manifest-000001.json{UNFINISHED}")


def test_a_files_name_does_not_reach_the_terminal_as_it_is(tmp_path: Path) -> None:
    (tmp_path / LOUD).symlink_to("/absent")
    with pytest.raises(ConfigError, match=r"/\\x1b\[2Jx\\nerror: all is well: a link") as caught:
        require_plain_files(tmp_path)
    assert str(caught.value).isprintable()


class Loud(FedAvg):
    """A strategy whose reason not to be resumed has lines."""

    def state(self) -> Any:
        raise NotImplementedError(LOUD)

    def restore(self, state: Any) -> None:
        pass


def test_a_reason_of_several_lines_is_kept_in_one(tmp_path: Path) -> None:
    table, writer = ClientsTable(), checkpoints(tmp_path)
    why_not = writer.commit(1, vector("a"), {}, Loud(), table, no_lines(tmp_path))
    assert why_not == r"\x1b[2Jx\nerror: all is well"
    with pytest.raises(CheckpointError, match="cannot be resumed: .*all is well"):
        checkpoints(tmp_path).load(rounds=2)
