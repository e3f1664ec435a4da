"""The files beside a checkpoint without which, or with damaged ones, a run does not go on."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest

from clients.partition import PartitionSummary, summary
from sim import manifest
from sim.manifest import UNFINISHED
from sim.partition_table import PARTITION, PARTITION_SUMMARY
from sim.run_folder import CONFIG, FAILURES, METRICS, PEERS, RESULT, STUDENT, begin
from tests.test_checkpoints import committed

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
