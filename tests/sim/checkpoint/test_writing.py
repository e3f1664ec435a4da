"""A committed round is what a run goes on from; the last few are kept, in few files."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from flwr.app import RecordDict
from flwr.serverapp.strategy import FedAvg
from safetensors import safe_open
from safetensors.numpy import load

from sim import files
from sim.checkpoint import manifest
from sim.checkpoint.manifest import name_of
from sim.checkpoint.writing import MOST_STATE_FILES
from sim.tracking.clients_table import ClientsTable
from sim.tracking.run_folder import FAILURES, METRICS
from sim.workers.state_serialization import freeze, thaw
from tests.checkpoints import ROWS, checkpoints, committed, files_in, no_lines, state
from tests.federations import vector


def value_of(frozen: bytes) -> Any:
    return thaw(frozen).metric_records["m"]["value"]


def values_in(states: Any) -> dict[int, Any]:
    return {key: value_of(states[key]) for key in states}


def named_in(folder: Path) -> set[str]:
    """Manifests, and what they name."""
    contents = [manifest.read_manifest(path) for path in manifest.manifests(folder)]
    named = {entry["file"] for content in contents for entry in manifest.entries_of(content)}
    return named | {name_of(content["round"]) for content in contents}


# --- what is committed ---


def test_a_checkpoint_has_all_that_was_committed(tmp_path: Path) -> None:
    committed(tmp_path)
    done = checkpoints(tmp_path).load(rounds=2)
    assert done.server_round == 2
    assert list(done.arrays) == ["b"]
    assert values_in(done.states) == {0: 0.1, 1: 1.2, 2: 2.2, 3: 3.1}
    rows = [{k: v for k, v in row.items() if v is not None} for row in done.clients.to_pylist()]
    assert rows == [*ROWS, {**ROWS[0], "round": 2, "zeal": 7.0}]
    assert done.lines == {METRICS: 2, FAILURES: 0}
    assert dict(done.strategy) == {}
    assert done.damage == ""


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_the_last_few_checkpoints_stay_and_what_only_others_need_goes(
    tmp_path: Path, kept: int
) -> None:
    writer = checkpoints(tmp_path, kept=kept)
    for server_round in range(1, 7):
        everyone = {k: state(server_round + k) for k in range(3)}
        about = FedAvg(), ClientsTable(), no_lines(tmp_path)
        writer.commit(server_round, vector("c"), everyone, *about)
    rounds = range(7 - kept, 7)
    assert files_in(tmp_path / "checkpoint") == sorted(
        f"{role}-{server_round:06d}.{suffix}"
        for server_round in rounds
        for role, suffix in (
            ("arrays", "safetensors"), ("manifest", "json"), ("states", "safetensors"),
            ("strategy", "safetensors"),
        )
    )  # fmt: skip


def test_only_what_changed_is_written_anew(tmp_path: Path) -> None:
    committed(tmp_path, kept=1)
    assert files_in(tmp_path / "checkpoint") == [
        "arrays-000002.safetensors", "clients-000001.parquet", "clients-000002.parquet",
        "manifest-000002.json", "states-000001.safetensors", "states-000002.safetensors",
        "strategy-000002.safetensors",
    ]  # fmt: skip


def test_a_loaded_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    committed(tmp_path)
    writer = checkpoints(tmp_path, kept=1)
    done = writer.load(rounds=3)
    later = ClientsTable(done.clients)
    later.add([{**ROWS[0], "round": 3}])
    lines = {tmp_path / METRICS: 2, tmp_path / FAILURES: 0}
    writer.commit(3, vector("c"), {0: state(0.3), 1: state(1.3)}, FedAvg(), later, lines)
    done = checkpoints(tmp_path).load(rounds=3)
    assert values_in(done.states) == {0: 0.3, 1: 1.3, 2: 2.2, 3: 3.1}
    assert done.clients["round"].to_pylist() == [1, 1, 1, 2, 3]
    # Of the five states in the files before two are alive: they moved, and their files went.
    assert "states-000001.safetensors" not in files_in(tmp_path / "checkpoint")


def test_a_file_of_states_is_safetensors_and_holds_safetensors(tmp_path: Path) -> None:
    arrays = freeze(RecordDict({"model": vector("w")}))
    about = FedAvg(), ClientsTable(), no_lines(tmp_path)
    checkpoints(tmp_path).commit(1, vector(), {5: arrays, 11: state(1.0)}, *about)
    with safe_open(tmp_path / "checkpoint" / "states-000001.safetensors", "numpy") as file:
        assert set(file.keys()) == {"5", "11"}
        assert file.get_tensor("5").tobytes() == arrays
        assert list(load(file.get_tensor("5").tobytes())) == ["model/w"]


# --- few files, small manifests ---


def after(folder: Path, rounds: int, changed: Any, rows: int = 4) -> tuple[Any, int]:
    """Commit so many rounds of rows and states; return the checkpoint and its manifest's size."""
    writer, table = checkpoints(folder), ClientsTable()
    for server_round in range(1, rounds + 1):
        table.add([{**ROWS[0], "round": server_round, "client": k} for k in range(rows)])
        states = {k: state(server_round + k / 100) for k in changed(server_round)}
        writer.commit(server_round, vector(), states, FedAvg(), table, no_lines(folder))
    path = folder / "checkpoint" / name_of(rounds)
    return checkpoints(folder).load(rounds), path.stat().st_size


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody pulls the plug."""
    monkeypatch.setattr(files.os, "fsync", lambda handle: None)


@pytest.mark.usefixtures("quick_disk")
def test_files_and_manifest_do_not_grow_with_the_rounds(tmp_path: Path) -> None:
    sizes = []
    for rounds in (8, 64):
        (folder := tmp_path / str(rounds)).mkdir()
        done, size = after(folder, rounds, lambda server_round: range(5))
        assert values_in(done.states) == {k: rounds + k / 100 for k in range(5)}
        expected = [server_round for server_round in range(1, rounds + 1) for _ in range(4)]
        assert done.clients["round"].to_pylist() == expected
        sizes.append(size)
        files = files_in(folder / "checkpoint")
        assert len([name for name in files if "clients" not in name]) == 2 * 4
        # Those of the round before have the rows of 4, 2 and 1 rounds, or of 32, 16, ... and 1.
        assert len([name for name in files if "clients" in name]) == rounds.bit_length()
    assert sizes[0] == pytest.approx(sizes[1], abs=4)  # a digit or two


@pytest.mark.usefixtures("quick_disk")
@pytest.mark.parametrize("everyone", [False, True])
def test_states_that_rest_keep_few_files_and_few_dead_bytes(tmp_path: Path, everyone: bool) -> None:
    """One client changes in each round: of 50 that began together, or that came one by one."""
    rounds = 60

    def changed(server_round: int) -> Any:
        return range(50) if everyone and server_round == 1 else [server_round % 50]

    done, _ = after(tmp_path, rounds, changed, rows=0)
    last = {k: r for r in range(1, rounds + 1) for k in changed(r)}
    assert values_in(done.states) == {k: r + k / 100 for k, r in last.items()}
    parts = manifest.read_manifest(tmp_path / "checkpoint" / name_of(rounds))["states"]
    assert len(parts) <= MOST_STATE_FILES + 1
    live = sum(map(len, done.states.values()))
    assert sum(entry["bytes"] for entry in parts) < 3 * live


# --- crashes ---


class Power(Exception):
    """It went."""


@pytest.mark.parametrize("calls", range(1, 10))
def test_a_crash_anywhere_in_a_commit_leaves_the_one_before_usable(
    tmp_path: Path, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = committed(tmp_path)
    real, count = os.fsync, itertools.count(1)

    def fsync(handle: int) -> None:
        if next(count) == calls:
            raise Power
        real(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)
    lines = {tmp_path / METRICS: 2, tmp_path / FAILURES: 0}
    table = ClientsTable()
    table.add([*ROWS, ROWS[0], ROWS[1]])
    arguments = vector("c"), {0: state(0.3), 2: state(2.3)}, FedAvg(), table, lines
    with pytest.raises(Power):
        writer.commit(3, *arguments)
    monkeypatch.undo()
    survivor = checkpoints(tmp_path)
    done = survivor.load(rounds=3)
    # Four files, one of lines, two folders, then the manifest; the 9th is that of the folder after
    # the manifest got its name: committed.
    assert done.server_round == (3 if calls == 9 else 2)
    assert values_in(done.states) == (
        {0: 0.3, 1: 1.2, 2: 2.3, 3: 3.1} if calls == 9 else {0: 0.1, 1: 1.2, 2: 2.2, 3: 3.1}
    )
    survivor.commit(3, *arguments)
    assert set(files_in(tmp_path / "checkpoint")) == named_in(tmp_path / "checkpoint")  # swept up


def test_what_is_not_ours_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    writer = committed(tmp_path)
    (tmp_path / "checkpoint" / "notes.txt").write_text("mine")
    (tmp_path / "checkpoint" / "arrays-000009.safetensors.tmp").write_text("cut short")
    table = ClientsTable()
    table.add([*ROWS, ROWS[0]])
    writer.commit(3, vector(), {}, FedAvg(), table, no_lines(tmp_path))
    assert "notes.txt" in files_in(tmp_path / "checkpoint")
    assert "arrays-000009.safetensors.tmp" not in files_in(tmp_path / "checkpoint")


def test_a_disk_that_is_full_costs_the_commit_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = committed(tmp_path)
    before = files_in(tmp_path / "checkpoint")

    def full(path: Path, *_: Any) -> Any:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("sim.checkpoint.writing.write_states", full)
    table = ClientsTable()
    table.add([*ROWS, ROWS[0]])
    about = FedAvg(), table, no_lines(tmp_path)
    with pytest.raises(OSError, match=r"No space left .*states-000003\.safetensors"):
        writer.commit(3, vector("c"), {0: state(0.3)}, *about)
    assert files_in(tmp_path / "checkpoint") == before  # and what was begun is gone
    assert checkpoints(tmp_path).load(rounds=3).server_round == 2


# --- clients' states on a grid ---


def test_the_manifest_is_json_that_people_can_read(tmp_path: Path) -> None:
    committed(tmp_path)
    whole = json.loads((tmp_path / "checkpoint" / name_of(2)).read_text())
    assert (whole["format"], whole["version"]) == ("stillhouse checkpoint", 2)
    assert whole["content"]["round"] == 2
    assert [part["file"] for part in whole["content"]["states"]] == [
        "states-000001.safetensors", "states-000002.safetensors",
    ]  # fmt: skip
