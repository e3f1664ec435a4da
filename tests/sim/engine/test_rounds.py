"""The round loop: what it calls, what it survives, when it stops, how it resumes."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdam,
    FedAvg,
    Strategy,
)

from sim.engine.quorum import QuorumLost
from sim.engine.rounds import RoundReport
from sim.workers.pools import Pool
from tests.federations import (
    distillation,
    everyone,
    grid_over,
    inline,
    populations,
    run_foreign,
    run_ours,
    vector,
)
from tests.foreign_clients import foreign_app

# Client k adds (1, 2, 4, 8)[k] to each array and claims k + 1 examples.
MEAN_OF_ALL = 49 / 10
MEAN_WITHOUT_CLIENT_2 = (1 * 1 + 2 * 2 + 4 * 8) / 7


# --- what the loop calls ---


class Recording(Strategy):
    """Notes every attribute that is used, and hands the call on to FedAvg."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.inner = FedAvg()

    def summary(self) -> None:
        self.calls.append("summary")

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.calls.append(f"configure_train {server_round}")
        assert dict(config) == {}
        return self.inner.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        self.calls.append(f"aggregate_train {server_round} of {len(list(replies))}")
        return self.inner.aggregate_train(server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.calls.append(f"configure_evaluate {server_round}")
        assert dict(config) == {}
        return self.inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        self.calls.append(f"aggregate_evaluate {server_round} of {len(list(replies))}")
        return self.inner.aggregate_evaluate(server_round, replies)

    def start(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the loop is ours")


def test_exactly_flowers_five_methods_are_called_in_order() -> None:
    strategy = Recording()
    run_foreign(inline(foreign_app()), strategy, vector(), rounds=2)
    one_round = "configure_train {0}", "aggregate_train {0} of 4", "configure_evaluate {0}"
    expected = [
        call.format(r) for r in (1, 2) for call in (*one_round, "aggregate_evaluate {0} of 4")
    ]
    assert strategy.calls in (expected, ["summary", *expected])
    others = {name for name in vars(Strategy) if not name.startswith("_")} - {"start"}
    assert others == {call.split()[0] for call in [*expected, "summary"]}


@pytest.mark.parametrize(("every", "evaluated"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_every_so_many_rounds_and_the_last_are_evaluated(every: int, evaluated: list[int]) -> None:
    seen: list[float] = []

    def measure(arrays: ArrayRecord) -> dict[str, float]:
        seen.append(float(arrays["w"].numpy()[0]))
        return {"accuracy": 0.5}

    pool = inline(foreign_app())
    options = {"rounds": 5, "evaluate_every": every, "evaluate": measure}
    run = run_foreign(pool, FedAvg(), vector(), **options)
    assert [report.server_round for report in run.reports] == [1, 2, 3, 4, 5]
    assert [r.server_round for r in run.reports if r.student] == evaluated
    assert [r.server_round for r in run.reports if r.evaluated] == evaluated
    assert seen == pytest.approx([MEAN_OF_ALL * r for r in evaluated])
    assert [len(r.exchanges) for r in run.reports] == [
        8 if r in evaluated else 4 for r in range(1, 6)
    ]


# --- what it survives ---


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raise", "no disk left"),
        ("nan", "1 of 2 values that are not finite"),
        ("shape", "has shape (1,), expected (2,)"),
        ("dtype", "float16"),
    ],
)
def test_a_faulty_client_is_left_out_and_counted(
    everyone_pool: Pool, fault: str, reason: str
) -> None:
    name = f"{fault}@2"
    run = run_foreign(everyone_pool, FedAvg(), vector(name), rounds=1)
    (report,) = run.reports
    failed = [e for e in report.exchanges if e.failure]
    assert [(e.client_id, e.phase) for e in failed] == [(2, "train")]
    np.testing.assert_allclose(run.parameters[name], [MEAN_WITHOUT_CLIENT_2] * 2, rtol=1e-12)
    assert reason in failed[0].failure
    assert ("ValueError: no disk left" in failed[0].traceback) == (fault == "raise")


def test_a_failure_of_several_lines_keeps_its_first(everyone_pool: Pool) -> None:
    run = run_foreign(everyone_pool, FedAvg(), vector("raise-long@2"))
    (failed,) = [e for e in run.reports[0].exchanges if e.failure]
    assert failed.traceback.endswith("ValueError: no disk left\non this client\n")
    assert "ValueError: no disk left" in failed.failure


def test_a_claim_of_nan_examples_does_not_reach_the_global_model(everyone_pool: Pool) -> None:
    run = run_foreign(everyone_pool, FedAvg(), vector("mass@1"))
    # Without client 1: (1*1 + 3*4 + 4*8) / 8
    np.testing.assert_allclose(run.parameters["mass@1"], [45 / 8] * 2, rtol=1e-12)


# --- when it stops ---


def test_below_the_quorum_the_run_stops_and_names_the_first_failure(everyone_pool: Pool) -> None:
    reports: list[RoundReport] = []
    arrays = vector("raise@2", "nan@0", "raise@3")
    with pytest.raises(QuorumLost) as caught:
        run_foreign(everyone_pool, FedAvg(), arrays, quorum=0.5, report=reports.append)
    message = str(caught.value)
    assert "only 1 of 4 replies are usable, quorum is 0.5" in message
    assert "client 0 (arch-0), round 1, phase train" in message
    assert "array 'arrays/nan@0'" in message
    (report,) = reports
    assert [e.client_id for e in report.exchanges if e.failure] == [0, 2, 3]
    assert (report.student, report.train, report.evaluated) == ({}, {}, {})


def test_a_lost_quorum_carries_the_first_traceback(everyone_pool: Pool) -> None:
    with pytest.raises(QuorumLost) as caught:
        run_foreign(everyone_pool, FedAvg(), vector("raise-long@99"))
    message = str(caught.value)
    assert "only 0 of 4" in message
    assert "client 0 (arch-0), round 1, phase train" in message
    assert "Traceback (most recent call last)" in message
    assert "ValueError: no disk left\non this client" in message


def test_at_the_quorum_the_run_goes_on(everyone_pool: Pool) -> None:
    arrays = vector("raise@2", "raise@3")
    run = run_foreign(everyone_pool, FedAvg(), arrays, quorum=0.5)
    np.testing.assert_allclose(run.parameters["raise@2"], [5 / 3] * 2, rtol=1e-12)
    with pytest.raises(QuorumLost, match="only 2 of 4"):
        run_foreign(everyone_pool, FedAvg(), arrays, quorum=0.51)


def test_a_quorum_lost_in_evaluation_blames_an_evaluation(everyone_pool: Pool) -> None:
    # Client 2 fails to train, which the quorum bears; then all fail to evaluate, which it does not.
    with pytest.raises(QuorumLost) as caught:
        run_foreign(everyone_pool, FedAvg(), vector("raise@2", "late@99"))
    assert "only 0 of 4" in str(caught.value)
    assert "phase evaluate" in str(caught.value)
    assert "the test set is gone" in str(caught.value)


# --- how it resumes, and what its bits depend on ---


def test_a_run_in_two_parts_gives_the_bits_of_one(everyone_pool: Pool) -> None:
    clients = populations()[5]

    def strategy() -> Strategy:
        return distillation(clients, fraction=0.6, feed_back=True)

    whole = run_ours(everyone_pool, clients, strategy(), rounds=3)
    first = run_ours(everyone_pool, clients, strategy(), rounds=1)
    rest = {"arrays": first.arrays, "grid": first.grid, "first_round": 2}
    second = run_ours(everyone_pool, clients, strategy(), rounds=3, **rest)
    assert second.sha256 == whole.sha256 != first.sha256
    assert [r.student for r in first.reports + second.reports] == [r.student for r in whole.reports]
    assert [r.exchanges for r in second.reports] == [r.exchanges for r in whole.reports[1:]]


def test_flowers_strategies_resume_where_they_stopped() -> None:
    pool, whole, parts = inline(everyone()), FedAdam(), FedAdam()
    all_three = run_foreign(pool, whole, vector(), rounds=3)
    first = run_foreign(pool, parts, vector(), rounds=2)
    second = run_foreign(pool, parts, first.arrays, rounds=3, first_round=3, grid=grid_over(pool))
    assert second.sha256 == all_three.sha256


def test_a_strategy_that_draws_from_numpy_depends_on_the_seed_only() -> None:
    def noisy(seed: int) -> str:
        strategy = DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1.0, 1.0, 4)
        pool = inline(foreign_app())
        return run_foreign(pool, strategy, vector(), seed=seed).sha256

    assert noisy(1) == noisy(1) != noisy(2)
