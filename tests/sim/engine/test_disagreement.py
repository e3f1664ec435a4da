"""Replies that Flower's strategies refuse as a set: the odd ones go, the round goes on."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from clients.messages.arrays import read_arrays
from sim.engine.global_model_check import BadModel
from sim.engine.grid import PoolGrid
from sim.engine.quorum import QuorumLost
from sim.engine.rounds import RoundReport, run_rounds
from tests.federations import open_pool, run_foreign, vector
from tests.foreign_clients import foreign_app

START = ArrayRecord({"w": Array(np.zeros(2, np.float32))})


def odd_app() -> ClientApp:
    """Client k adds k + 1; client 2 answers in the way that the environment names."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        how = str(message.content.config_records["config"]["how"]) if client == 2 else ""
        arrays = {"w": Array(np.full(2, client + 1, np.float32))}
        metrics = {"num-examples": 1, "loss": 0.5}
        if how == "renamed":
            arrays = {"v": arrays["w"]}
        elif how == "missing":
            arrays = {}
        elif how == "no mass":
            del metrics["num-examples"]
        elif how == "extra metric":
            metrics["zeal"] = 1
        content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord(metrics)})
        return Message(content, reply_to=message)

    return app


class Asking(FedAvg):
    """FedAvg that says in its requests how client 2 is to misbehave."""

    how = ""

    def configure_train(self, server_round, arrays, config, grid):  # type: ignore[no-untyped-def]
        config["how"] = self.how
        return super().configure_train(server_round, arrays, config, grid)


@pytest.mark.parametrize("pool_kind", ["inline", "ray"])
def test_a_reply_with_other_names_is_rejected_and_the_round_goes_on(pool_kind: str) -> None:
    for_each: list[list[RoundReport]] = []
    with open_pool(pool_kind, odd_app()) as pool:
        for how in ("renamed", "missing", "no mass", "extra metric"):
            strategy = Asking(fraction_evaluate=0.0)
            strategy.how = how
            grid = PoolGrid(pool, ["a"] * 4)
            reports: list[RoundReport] = []
            arrays = run_rounds(
                strategy, grid, START, rounds=1, seed=0, evaluate=lambda a: {},
                report=reports.append,
            )  # fmt: skip
            for_each.append(reports)
            # (1 + 2 + 4) / 3 without client 2, which would have added 3
            np.testing.assert_allclose(read_arrays(arrays)["w"], 7 / 3, rtol=1e-6)
    for reports in for_each:
        failures = {e.client_id: e.failure for e in reports[0].exchanges if e.failure}
        assert list(failures) == [2]
        assert "not named as the other clients' are" in failures[2]


def test_odd_replies_count_against_the_quorum() -> None:
    strategy = Asking(fraction_evaluate=0.0)
    strategy.how = "renamed"
    with open_pool("inline", odd_app()) as pool:
        grid = PoolGrid(pool, ["a"] * 4)
        with pytest.raises(QuorumLost, match=r"only 3 of 4 replies are usable.*client 2 \(a\)"):
            run_rounds(
                strategy, grid, START, rounds=1, seed=0, evaluate=lambda a: {},
                report=lambda report: None, quorum=0.9,
            )  # fmt: skip


class Summing(Asking):
    """A user's, which looks at nothing before it adds."""

    fault: Exception | None = None

    def aggregate_train(self, server_round, replies):  # type: ignore[no-untyped-def]
        arrays = [read_arrays(reply.content["arrays"]) for reply in replies if reply.has_content()]
        if self.fault is not None:
            raise self.fault
        total = sum(each["w"] for each in arrays)
        return ArrayRecord({"w": Array(total.astype(np.float32))}), None


def summed(how: str, fault: Exception | None = None, quorum: float = 0.5) -> list[float]:
    strategy = Summing(fraction_evaluate=0.0)
    strategy.how, strategy.fault = how, fault
    with open_pool("inline", odd_app()) as pool:
        arrays = run_rounds(
            strategy, PoolGrid(pool, ["a"] * 4), START, rounds=1, seed=0, quorum=quorum,
            evaluate=lambda a: {}, report=lambda report: None,
        )  # fmt: skip
    return [float(value) for value in read_arrays(arrays)["w"]]


def test_an_odd_client_does_not_end_a_users_strategy_either() -> None:
    assert summed("renamed") == [1 + 2 + 4] * 2


@pytest.mark.parametrize(
    ("fault", "quorum"), [(NameError("sadi"), 0.5), (ValueError("mine"), 0.5), (None, 0.9)]
)
def test_what_a_users_strategy_raises_is_not_put_down_to_the_clients(
    fault: Exception | None, quorum: float
) -> None:
    """A misspelt name ended in "its arrays are not as the other clients' are", and nothing else."""
    kind = KeyError if fault is None else type(fault)
    with pytest.raises(kind, match=str(fault or "w")):
        summed("renamed", fault, quorum)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "aggregate_train returned nothing, expected"),
        (START, "aggregate_train returned ArrayRecord, expected"),
        ((None, {"a": 1.0}), "the metrics of aggregate_train are of dict, expected MetricRecord"),
    ],
)
def test_what_a_strategy_returns_is_what_flower_asks_for(returned: object, said: str) -> None:
    class Odd(Summing):
        def aggregate_train(self, server_round, replies):  # type: ignore[no-untyped-def]
            return returned

    with open_pool("inline", odd_app()) as pool, pytest.raises(BadModel, match=f"Odd.*{said}"):
        run_rounds(
            Odd(fraction_evaluate=0.0), PoolGrid(pool, ["a"] * 4), START, rounds=1, seed=0,
            evaluate=lambda a: {}, report=lambda report: None,
        )  # fmt: skip


def test_a_worker_out_of_memory_is_replaced_like_one_that_was_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sim.workers import ray_pool

    real, killed = ray_pool.ray.get, list[object]()

    def out_of_memory_once(answer: object) -> object:
        if not killed:
            killed.append(answer)
            raise ray_pool.ray.exceptions.OutOfMemoryError("killed by Ray's memory monitor")
        return real(answer)

    with open_pool("ray", foreign_app()) as pool:
        assert isinstance(pool, ray_pool.RayPool)
        pool.gather(2, 60.0)  # the only other thing that is fetched
        workers = pool._there()
        before = list(workers.actors)
        monkeypatch.setattr(ray_pool.ray, "get", out_of_memory_once)
        run = run_foreign(pool, FedAvg(), vector())
        monkeypatch.undo()
    assert not [e for e in run.reports[0].exchanges if e.failure]
    assert killed
    assert workers.actors != before
