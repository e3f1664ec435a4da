"""A committed round is what a run goes on from; anything else in its place is refused."""

import hashlib
import itertools
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, strategy
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedXgbCyclic,
    FedYogi,
)

from clients.messages import node_id_of
from clients.screening import fault_of
from sim import manifest
from sim.checkpoints import MANIFEST, Checkpoint, Checkpoints
from sim.clients_table import ClientsTable
from sim.grid import PoolGrid
from sim.manifest import CheckpointError
from sim.pool import Pool
from sim.rounds import QuorumLost
from sim.run_folder import FAILURES, METRICS
from sim.states import freeze, thaw
from sim.strategy_state import KEPT, Resumable, restore_strategy, strategy_state
from sim.tracking import Tracker
from tests.federations import (
    SEED,
    Run,
    distillation,
    populations,
    run_foreign,
    run_ours,
    vector,
)

ROWS = [{"round": 1, "client": k, "architecture": "a", "request_bytes": 3, "reply_bytes": 4,
         "failure": "", "accuracy": k / 3} for k in range(3)]  # fmt: skip


def state(value: float) -> bytes:
    return freeze(RecordDict({"m": MetricRecord({"value": value})}))


def value_of(frozen: bytes) -> Any:
    return thaw(frozen).metric_records["m"]["value"]


def checkpoints(folder: Path, seed: int = SEED, config: str = "c0ffee") -> Checkpoints:
    return Checkpoints(folder / "checkpoint", seed, config)


def committed(folder: Path) -> Checkpoints:
    """Two rounds: clients 0 and 1 changed in the first, 1 and 2 in the second."""
    writer = checkpoints(folder)
    commit = partial(writer.commit, strategy=FedAvg())
    (folder / METRICS).write_text('{"round": 1}\n{"round": 2}\n')
    lines = {folder / METRICS: 1, folder / FAILURES: 0}
    table = ClientsTable()
    table.add(ROWS)
    first, second = [(0, state(0.1)), (1, state(1.1))], [(1, state(1.2)), (2, state(2.2))]
    commit(1, vector("a"), states=first, clients=table, lines=lines)
    table.add([{**ROWS[0], "round": 2, "zeal": 7.0}])
    lines[folder / METRICS] = 2
    commit(2, vector("b"), states=second, clients=table, lines=lines)
    return writer


def files_in(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


# --- what is committed ---


def test_a_checkpoint_has_all_that_was_committed(tmp_path: Path) -> None:
    committed(tmp_path)
    done = checkpoints(tmp_path).load(rounds=2)
    assert done.server_round == 2
    assert list(done.arrays) == ["b"]
    assert {key: value_of(done.states[key]) for key in done.states} == {0: 0.1, 1: 1.2, 2: 2.2}
    rows = [{k: v for k, v in row.items() if v is not None} for row in done.clients.to_pylist()]
    assert rows == [*ROWS, {**ROWS[0], "round": 2, "zeal": 7.0}]
    assert done.lines == {METRICS: 2, FAILURES: 0}
    assert dict(done.strategy) == {}


def test_only_what_changed_is_written_anew_and_only_the_last_checkpoint_stays(
    tmp_path: Path,
) -> None:
    committed(tmp_path)
    assert files_in(tmp_path / "checkpoint") == [
        "arrays-000002.safetensors", "clients-000001.parquet", "clients-000002.parquet",
        MANIFEST, "states/0-000001.safetensors", "states/1-000002.safetensors",
        "states/2-000002.safetensors", "strategy-000002.safetensors",
    ]  # fmt: skip


def test_a_loaded_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    committed(tmp_path)
    writer = checkpoints(tmp_path)
    done = writer.load(rounds=3)
    later = ClientsTable(done.clients)
    later.add([{**ROWS[0], "round": 3}])
    writer.commit(3, vector("c"), [(0, state(0.3))], FedAvg(), later, {})
    done = checkpoints(tmp_path).load(rounds=3)
    assert {key: value_of(done.states[key]) for key in done.states} == {0: 0.3, 1: 1.2, 2: 2.2}
    assert done.clients["round"].to_pylist() == [1, 1, 1, 2, 3]
    assert "states/0-000001.safetensors" not in files_in(tmp_path / "checkpoint")


class Power(Exception):
    """It went."""


@pytest.mark.parametrize("calls", range(1, 12))
def test_a_crash_anywhere_in_a_commit_leaves_the_one_before_usable(
    tmp_path: Path, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = committed(tmp_path)
    real, count = os.fsync, itertools.count(1)

    def fsync(handle: int) -> None:
        if next(count) == calls:
            raise Power
        real(handle)

    monkeypatch.setattr(manifest.os, "fsync", fsync)
    new = [(0, state(0.3)), (2, state(2.3))]
    lines = {tmp_path / METRICS: 2}
    table = ClientsTable()
    table.add([*ROWS, ROWS[0], ROWS[1]])
    with pytest.raises(Power):
        writer.commit(3, vector("c"), new, FedAvg(), table, lines)
    monkeypatch.undo()
    survivor = checkpoints(tmp_path)
    done = survivor.load(rounds=3)
    # The 11th is that of the folder after the manifest was renamed: committed.
    assert done.server_round == (3 if calls == 11 else 2)
    values = {key: value_of(done.states[key]) for key in done.states}
    assert values == ({0: 0.3, 1: 1.2, 2: 2.3} if calls == 11 else {0: 0.1, 1: 1.2, 2: 2.2})
    named = {entry["file"] for entry in manifest.entries_of(survivor._content)} | {MANIFEST}
    assert set(files_in(tmp_path / "checkpoint")) == named  # what was left lying is swept up


def test_what_is_not_ours_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    committed(tmp_path)
    (tmp_path / "checkpoint" / "notes.txt").write_text("mine")
    (tmp_path / "checkpoint" / "arrays-000009.safetensors.tmp").write_text("cut short")
    checkpoints(tmp_path).load(rounds=2)
    assert "notes.txt" in files_in(tmp_path / "checkpoint")
    assert "arrays-000009.safetensors.tmp" not in files_in(tmp_path / "checkpoint")


# --- what is refused ---


def test_no_checkpoint_says_which_option_makes_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{MANIFEST}: no checkpoint .*checkpoint_every"):
        checkpoints(tmp_path).load(rounds=2)


@pytest.mark.parametrize(
    "name",
    [
        "arrays-000002.safetensors",
        "states/0-000001.safetensors",
        "clients-000001.parquet",
        "strategy-000002.safetensors",
    ],
)
@pytest.mark.parametrize("damage", ["bit", "cut", "gone", "longer"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: str) -> None:
    committed(tmp_path)
    path = tmp_path / "checkpoint" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    changed = {"bit": bytes(content), "cut": content[:-1], "longer": path.read_bytes() + b"\0"}
    path.unlink() if damage == "gone" else path.write_bytes(changed[damage])
    expected = "cannot be read: No such file" if damage == "gone" else "damaged: "
    with pytest.raises(CheckpointError, match=f"checkpoint/{name}: {expected}"):
        checkpoints(tmp_path).load(rounds=2)


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a manifest's content and make its hash fit, as an attacker would."""
    content = manifest.read_manifest(path)
    change(content)
    manifest.write_manifest(path, content)


MANIFESTS: dict[str, tuple[Callable[[str], str], str]] = {
    "cut": (lambda text: text[:-9], "damaged: "),
    "empty": (lambda text: "", "damaged: "),
    "another round": (
        lambda text: text.replace('"round": 2', '"round": 1'),
        "damaged: its content",
    ),
    "foreign": (lambda text: '{"format": "other"}', "not the manifest of a stillhouse checkpoint"),
    "a list": (lambda text: "[]", "not the manifest of a stillhouse checkpoint"),
    "newer": (lambda text: text.replace('"version": 1', '"version": 2'), "has format version 2, "),
}


@pytest.mark.parametrize(("change", "message"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_is_not_ours_is_refused(
    tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    committed(tmp_path)
    path = tmp_path / "checkpoint" / MANIFEST
    path.write_text(change(path.read_text()))
    with pytest.raises(CheckpointError, match=f"{MANIFEST}: {message}"):
        checkpoints(tmp_path).load(rounds=2)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "states/../../x-000001.parquet"])
def test_a_manifest_that_names_other_peoples_files_is_not_followed(
    tmp_path: Path, name: str
) -> None:
    committed(tmp_path)
    path = tmp_path / "checkpoint" / MANIFEST
    rewritten(path, lambda content: content["arrays"].update(file=name))
    with pytest.raises(CheckpointError, match="names a file "):
        checkpoints(tmp_path).load(rounds=2)


def test_a_checkpoint_of_another_run_or_beyond_the_last_round_is_refused(tmp_path: Path) -> None:
    committed(tmp_path)
    with pytest.raises(CheckpointError, match=f"{MANIFEST}: its seed is 7, this run's 8"):
        checkpoints(tmp_path, seed=8).load(rounds=2)
    with pytest.raises(CheckpointError, match="its config_sha256 is c0ffee, this run's decaf"):
        checkpoints(tmp_path, config="decaf").load(rounds=2)
    with pytest.raises(CheckpointError, match="rounds=1: .* is of round 2 already"):
        checkpoints(tmp_path).load(rounds=1)


def test_arrays_that_are_no_frozen_state_are_refused(tmp_path: Path) -> None:
    committed(tmp_path)
    path = tmp_path / "checkpoint" / "arrays-000002.safetensors"
    path.write_bytes(b"\x80\x04}.")  # a pickle of {}, hash and all
    entry = {"bytes": 4, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    rewritten(path.with_name(MANIFEST), lambda content: content["arrays"].update(entry))
    with pytest.raises(CheckpointError, match=f"{path}: not a frozen state"):
        checkpoints(tmp_path).load(rounds=2)


# --- what strategies keep ---

FLOWERS: dict[str, Callable[[], Any]] = {
    "FedAvg": FedAvg,
    "FedAvgM": partial(FedAvgM, server_learning_rate=0.9, server_momentum=0.8),
    "FedAvgM off": FedAvgM,
    "FedAdagrad": FedAdagrad,
    "FedAdam": FedAdam,
    "FedYogi": FedYogi,
}


def run_to(
    pool: Pool, folder: Path, make: Callable[[], Any], last: int, resume: bool, rounds: int = 5
) -> Run:
    """Run five rounds of foreign clients, of which the driver lives to see the first so many."""
    writer, kept, grid = checkpoints(folder), make(), PoolGrid(pool, ["a"] * 4, fault_of)
    if resume:
        writer.load(rounds)
    arrays, first_round = writer.start(kept, grid, vector("w", "same"))
    options = {"first_round": first_round, "rounds": last, "grid": grid}

    def commit(server_round: int, arrays: ArrayRecord) -> None:
        writer.commit(server_round, arrays, grid.states.changed(), kept, ClientsTable(), {})

    return run_foreign(pool, kept, arrays, commit=commit, **options)


@pytest.mark.parametrize("make", FLOWERS.values(), ids=FLOWERS)
def test_flowers_strategies_go_on_with_the_same_bits(
    everyone_pool: Pool, tmp_path: Path, make: Callable[[], Any]
) -> None:
    (tmp_path / "whole").mkdir()
    whole = run_to(everyone_pool, tmp_path / "whole", make, last=5, resume=False)
    run_to(everyone_pool, tmp_path, make, last=2, resume=False)
    again = run_to(everyone_pool, tmp_path, make, last=5, resume=True)
    assert [report.server_round for report in again.reports] == [3, 4, 5]
    assert again.sha256 == whole.sha256
    if make in (FedAdam, FedYogi, FedAdagrad):  # and what they keep is what makes it so
        forgetful = run_foreign(
            everyone_pool, make(), checkpoints(tmp_path).load(5).arrays, rounds=7, first_round=6
        )
        remembering = run_to(everyone_pool, tmp_path, make, last=7, resume=True, rounds=7)
        assert forgetful.sha256 != remembering.sha256


@pytest.mark.parametrize("kind", KEPT)
def test_flowers_strategies_have_the_attributes_that_were_read(kind: Any) -> None:
    needed = {"Bulyan": {"num_malicious_nodes": 1}, "FedProx": {"proximal_mu": 0.1}}
    needed["QFedAvg"] = {"client_learning_rate": 0.1, "q": 0.2}
    made = kind(**needed.get(kind.__name__, {}))
    fresh = {name for name in KEPT[kind] if getattr(made, name) is None}
    assert fresh == KEPT[kind].keys()
    assert dict(strategy_state(made)) == {}


def test_which_of_flowers_strategies_cannot_be_resumed() -> None:
    names = {n for n in strategy.__all__ if isinstance(getattr(strategy, n), type)}
    others = names - {kind.__name__ for kind in KEPT} - {"Strategy", "Result"}
    assert {n for n in others if not n.startswith("Differential")} == {
        "FedXgbBagging", "FedXgbCyclic",
    }  # fmt: skip
    for made in (FedXgbCyclic(), DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1.0, 1.0, 2)):
        with pytest.raises(NotImplementedError, match=type(made).__name__):
            strategy_state(made)


class Counting(FedAvg):
    """Somebody's strategy with a memory."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        self.calls += 1
        return super().aggregate_train(server_round, replies)


class Telling(Counting):
    def state(self) -> RecordDict:
        return RecordDict({"mine": ConfigRecord({"calls": self.calls})})

    def restore(self, state: RecordDict) -> None:
        self.calls = int(state.config_records["mine"]["calls"])  # type: ignore[arg-type]


class Plain(FedAvg):
    """One that only does otherwise what FedAvg does."""


def test_a_strategy_that_tells_is_resumed_and_one_that_does_not_is_refused(
    everyone_pool: Pool, tmp_path: Path
) -> None:
    assert isinstance(Telling(), Resumable)
    assert not isinstance(Counting(), Resumable)
    telling = Telling()
    run_to(everyone_pool, tmp_path, Telling, last=2, resume=False)
    writer = checkpoints(tmp_path)
    writer.load(rounds=5)
    writer.start(telling, PoolGrid(everyone_pool, ["a"] * 4, fault_of), vector("w"))
    assert telling.calls == 2

    (tmp_path / "other").mkdir()
    told: list[str] = []
    kept, grid = Counting(), PoolGrid(everyone_pool, ["a"] * 4, fault_of)
    tracker = Tracker(tmp_path / "other", {}, "")
    commit = checkpoints(tmp_path / "other").after_rounds(2, 3, told.append, kept, grid, tracker)
    run_foreign(everyone_pool, kept, vector(), grid=grid, rounds=2, commit=commit)
    tracker.close()
    assert [text[:47] for text in told] == ["this checkpoint cannot be resumed: Counting has"]
    assert (tmp_path / "other/checkpoint/arrays-000002.safetensors").exists()
    with pytest.raises(CheckpointError, match="cannot be resumed: Counting has calls beyond what"):
        checkpoints(tmp_path / "other").load(rounds=5)
    assert dict(strategy_state(Plain())) == {}


def test_a_state_of_another_strategy_is_refused() -> None:
    adam = FedAdam()
    adam.m_t = {"w": np.zeros(2)}
    with pytest.raises(ValueError, match="FedAvg keeps no m_t"):
        restore_strategy(FedAvg(), strategy_state(adam))


# --- rules that learn ---


class Learned:
    """Trust each client by how often it has answered."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, teachers: Any) -> Any:
        self.seen += 1
        order = 1.0 + (np.arange(len(teachers.client_ids)) + self.seen) % 3
        return teachers.mask * teachers.num_examples.new_tensor(order)[:, None]


class LearnedAndTold(Learned):
    def state(self) -> RecordDict:
        return RecordDict({"count": MetricRecord({"seen": self.seen})})

    def restore(self, state: RecordDict) -> None:
        self.seen = int(state.metric_records["count"]["seen"])  # type: ignore[arg-type]


def distilled(pool: Pool, folder: Path, scorer: Any, last: int, resume: bool) -> Run:
    clients = populations()[5]
    kept, grid = (
        distillation(clients, scorer=scorer),
        PoolGrid(pool, clients.architectures, fault_of),
    )
    writer = checkpoints(folder)
    if resume:
        writer.load(last)
    from clients.architectures import parameters_of
    from clients.messages import write_arrays

    begun = write_arrays(parameters_of(kept.student))
    arrays, first_round = writer.start(kept, grid, begun)
    tracker = Tracker(folder, {}, "", writer.done.clients if writer.done else None)
    commit = writer.after_rounds(2, last, pytest.fail, kept, grid, tracker)
    options = {"arrays": arrays, "first_round": first_round, "commit": commit, "grid": grid}
    try:
        return run_ours(pool, clients, kept, rounds=last, report=tracker.round, **options)
    finally:
        tracker.close()


@pytest.mark.parametrize("scorer", [None, LearnedAndTold])
def test_distillation_goes_on_with_the_same_bits_and_so_do_rules_that_learn(
    everyone_pool: Pool, tmp_path: Path, scorer: Any
) -> None:
    from strategies.scorers import max_prob

    make = scorer or (lambda: max_prob)
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = distilled(everyone_pool, tmp_path / "whole", make(), last=4, resume=False)
    distilled(everyone_pool, tmp_path / "parts", make(), last=2, resume=False)
    again = distilled(everyone_pool, tmp_path / "parts", make(), last=4, resume=True)
    assert again.sha256 == whole.sha256
    for name in (METRICS, FAILURES, "clients.parquet"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    for name in files_in(tmp_path / "whole" / "checkpoint"):
        both = [(tmp_path / run / "checkpoint" / name).read_bytes() for run in ("whole", "parts")]
        assert both[0] == both[1], name


def test_a_rule_that_may_have_learnt_and_does_not_tell_is_named() -> None:
    with pytest.raises(NotImplementedError, match="scorer .*test_checkpoints.Learned is an "):
        strategy_state(distillation(populations()[5], scorer=Learned()))
    with pytest.raises(NotImplementedError, match="loss builtins.method"):
        strategy_state(distillation(populations()[5], loss=Stubborn().loss))


class Stubborn:
    def loss(self, logits: Any, targets: Any, temperature: float) -> Any:
        return (logits - targets).square().sum(-1)


def test_a_round_that_loses_its_quorum_is_not_committed(
    everyone_pool: Pool, tmp_path: Path
) -> None:
    rounds: list[int] = []

    def commit(server_round: int, arrays: ArrayRecord) -> None:
        rounds.append(server_round)

    with pytest.raises(QuorumLost):
        run_foreign(everyone_pool, FedAvg(), vector("raise@2"), quorum=1.0, commit=commit)
    assert rounds == []
    run_foreign(everyone_pool, FedAvg(), vector(), quorum=1.0, commit=commit, rounds=2)
    assert rounds == [1, 2]


@pytest.mark.parametrize(
    ("every", "expected"), [(0, []), (1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])]
)
def test_every_so_many_rounds_and_the_last_are_committed(
    everyone_pool: Pool, tmp_path: Path, every: int, expected: list[int]
) -> None:
    grid, kept, rounds = PoolGrid(everyone_pool, ["a"] * 4, fault_of), FedAvg(), []
    tracker = Tracker(tmp_path, {}, "")
    commit = checkpoints(tmp_path).after_rounds(every, 5, pytest.fail, kept, grid, tracker)

    def noting(server_round: int, arrays: ArrayRecord) -> None:
        commit(server_round, arrays)
        if (tmp_path / "checkpoint").exists():
            last: Checkpoint = checkpoints(tmp_path).load(rounds=5)
            rounds.append(last.server_round)

    run_foreign(everyone_pool, kept, vector(), grid=grid, rounds=5, commit=noting)
    tracker.close()
    assert sorted(set(rounds)) == expected


# --- clients' states on a grid ---


def test_a_grid_tells_which_states_changed_and_takes_them_back(everyone_pool: Pool) -> None:
    def count(grid: Grid, *client_ids: int) -> list[Any]:
        content = RecordDict({"config": ConfigRecord({"tag": 0}), "arrays": vector("w")})
        sent = [
            Message(content, dst_node_id=node_id_of(k), message_type="train.count")
            for k in client_ids
        ]
        replies = grid.send_and_receive(sent)
        return [reply.content.metric_records["metrics"]["before"] for reply in replies]

    grid = PoolGrid(everyone_pool, ["a"] * 4, fault_of)
    grid.begin_round(1)
    count(grid, 0, 2)
    count(grid, 2)
    states = dict(grid.states.changed())
    assert list(states) == [0, 2]
    assert dict(grid.states.changed()) == {}
    count(grid, 3)
    assert [client_id for client_id, _ in grid.states.changed()] == [3]

    other = PoolGrid(everyone_pool, ["a"] * 4, fault_of)
    other.begin_round(2)
    other.states.load(states)
    assert dict(other.states.changed()) == {}
    assert count(other, 0, 1, 2) == [1, 0, 2]
    assert freeze(grid.states.of(2)) == states[2]


def test_the_manifest_is_json_that_people_can_read(tmp_path: Path) -> None:
    committed(tmp_path)
    whole = json.loads((tmp_path / "checkpoint" / MANIFEST).read_text())
    assert (whole["format"], whole["version"]) == ("stillhouse checkpoint", 1)
    assert whole["content"]["round"] == 2
    assert whole["content"]["states"]["0"]["file"] == "states/0-000001.safetensors"
