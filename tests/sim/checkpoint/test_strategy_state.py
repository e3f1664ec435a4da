"""What strategies and rules keep between rounds comes back, and the bits are the same."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp import strategy
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedXgbCyclic,
    FedYogi,
)

from sim.checkpoint.manifest import CheckpointError
from sim.checkpoint.reading import Checkpoint
from sim.checkpoint.strategy_state import KEPT, Resumable, restore_strategy, strategy_state
from sim.engine.grid import PoolGrid
from sim.engine.quorum import QuorumLost
from sim.tracking.clients_table import ClientsTable
from sim.tracking.run_folder import FAILURES, METRICS
from sim.tracking.tracker import Tracker
from sim.workers.pools import Pool
from tests.checkpoints import checkpoints, files_in, no_lines
from tests.federations import Run, distillation, populations, run_foreign, run_ours, vector

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
    writer, kept, grid = checkpoints(folder), make(), PoolGrid(pool, ["a"] * 4)
    if resume:
        writer.load(rounds)
    arrays, first_round = writer.start(kept, grid, vector("w", "same"))
    options = {"first_round": first_round, "rounds": last, "grid": grid}

    def commit(server_round: int, arrays: ArrayRecord) -> None:
        table, lines = ClientsTable(), no_lines(folder)
        writer.commit(server_round, arrays, grid.states.changed(), kept, table, lines)

    return run_foreign(pool, kept, arrays, commit=commit, **options)


@pytest.mark.parametrize(
    "make",
    [pytest.param(m, marks=() if n == "FedAdam" else pytest.mark.slow) for n, m in FLOWERS.items()],
    ids=FLOWERS,
)
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
    writer.start(telling, PoolGrid(everyone_pool, ["a"] * 4), vector("w"))
    assert telling.calls == 2

    (tmp_path / "other").mkdir()
    told: list[str] = []
    kept, grid = Counting(), PoolGrid(everyone_pool, ["a"] * 4)
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
        PoolGrid(pool, clients.architectures),
    )
    writer = checkpoints(folder)
    if resume:
        writer.load(last)
    from clients.messages.requests import write_arrays
    from clients.models.factory import parameters_of

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
    from strategies.aggregation.scorers import max_prob

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
    with pytest.raises(NotImplementedError, match="scorer .*test_strategy_state.Learned is an "):
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
    grid, kept, rounds = PoolGrid(everyone_pool, ["a"] * 4), FedAvg(), []
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
