"""The files beside a checkpoint without which, or with damaged ones, a run does not go on."""

import json
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg

from clients.partition import PartitionSummary, summary
from conf.errors import ConfigError
from conf.trust import require_file_path, require_plain_files
from sim import files
from sim.checkpoint.manifest import CheckpointError
from sim.files import UNFINISHED
from sim.tracking import projector
from sim.tracking.clients_table import ClientsTable
from sim.tracking.partition_table import PARTITION, PARTITION_SUMMARY
from sim.tracking.run_folder import CONFIG, FAILURES, METRICS, PEERS, RESULT, STUDENT, begin
from sim.tracking.tracker import Tracker
from tests.checkpoints import checkpoints, committed, no_lines
from tests.federations import vector

LINES = {METRICS: 0, FAILURES: 0}
LOUD = "\x1b[2Jx\nerror: all is well"
"""What a terminal obeys."""


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
    monkeypatch.setattr(files, "_sync", lambda path: synced.append(path.name))
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


@pytest.mark.parametrize("line", ["[]", "3", "{", "[" * 100_000, '[["round", 1]]', "\udcff"])
def test_a_line_that_is_no_object_is_named_before_anything_is_removed(
    tmp_path: Path, line: str
) -> None:
    begin(tmp_path, "", shape())
    (tmp_path / RESULT).write_text("x")
    content = f"{{}}\n{line}\n".encode(errors="surrogateescape")
    (tmp_path / METRICS).write_bytes(content)
    with pytest.raises(ValueError, match=f"{METRICS}: line 2: expected a JSON object"):
        begin(tmp_path, "", shape(), {**LINES, METRICS: 2})
    assert (tmp_path / RESULT).exists()
    begin(tmp_path, "", shape(), {**LINES, METRICS: 1})


@pytest.mark.parametrize(
    "change",
    [{"bytes": []}, {"strategy": None}, {"student": {"accuracy": "x"}}, {"failures": "1"}],
)
def test_a_line_of_a_round_that_no_run_has_written_is_named(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    whole = {"round": 1, "failures": 0, "bytes": {}, "strategy": {}, "student": {}, "clients": {}}
    (tmp_path / METRICS).write_text(json.dumps(whole | change) + "\n")
    with pytest.raises(ValueError, match=f"{METRICS}: line 1: is none that a run has written"):
        Tracker(tmp_path, {}, "")


@pytest.mark.parametrize("line", ["3", "3\tx", ""])
def test_names_of_points_that_nobody_wrote_are_named(tmp_path: Path, line: str) -> None:
    projector.add(tmp_path, 1, [3], np.zeros((1, 2)))
    (tmp_path / projector.NAMES).write_text(f"{projector.HEAD}\n{line}\n")
    with pytest.raises(ValueError, match=r"clients_names.tsv: expected lines of client, tab, r"):
        projector.go_on_after(tmp_path, 1)


@pytest.mark.parametrize("value", ["~nosuchuser/x", "a\0b"])
def test_a_path_that_is_none_is_named_by_its_key(value: str) -> None:
    with pytest.raises(ConfigError, match="data.root=.*: expected a path: "):
        require_file_path("data.root", value)


@pytest.mark.parametrize("server_round", [2, 3])
@pytest.mark.parametrize("name", ["arrays-000002.safetensors", "manifest-000002.json"])
def test_a_folder_in_the_place_of_a_file_does_not_keep_rounds_from_ending(
    tmp_path: Path, name: str, server_round: int
) -> None:
    committed(tmp_path)
    path = tmp_path / "checkpoint" / name
    path.unlink()
    path.mkdir()
    (path / "precious").touch()
    writer = checkpoints(tmp_path)
    done = writer.load(rounds=3)
    table, lines = ClientsTable(done.clients), no_lines(tmp_path)
    writer.commit(server_round, vector("c"), {}, FedAvg(), table, lines)
    assert checkpoints(tmp_path).load(rounds=3).server_round == server_round
    assert [each.name for each in path.parent.glob("*.aside/*")] == ["precious"]
