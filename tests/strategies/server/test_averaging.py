"""Averaging with partial means: Flower's FedAvg up to rounding, on both pools and any grouping."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from hypothesis import given
from hypothesis import strategies as st

from clients.messages.accumulator import Reducer, part_message
from clients.messages.arrays import read_arrays
from clients.messages.requests import node_id_of
from sim.checkpoint.strategy_state import strategy_state
from sim.engine.grid import PoolGrid
from sim.workers.pools import Pool
from strategies.server.averaging import Averaging, WeightedMean, unlike_request
from tests.federations import everyone, inline, populations, run_foreign, run_ours, vector
from tests.foreign_clients import foreign_app


def content(arrays: dict[str, Any], num_examples: float, **metrics: float) -> RecordDict:
    record = ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()})
    return RecordDict(
        {"arrays": record, "metrics": MetricRecord({"num-examples": num_examples, **metrics})}
    )


# --- the mean ---


def weighted_mean(contents: Iterable[RecordDict]) -> RecordDict:
    return Reducer(WeightedMean).fold(contents)


def test_by_hand() -> None:
    parts = [
        content({"w": [1.0, 2.0], "n": 4}, 1, loss=0.5),
        content({"w": [5.0, 2.0], "n": 8}, 3, loss=0.1),
    ]
    folded = weighted_mean(parts)
    arrays = read_arrays(folded.array_records["arrays"])
    np.testing.assert_array_equal(arrays["w"], [4.0, 2.0])  # (1 + 15) / 4, (2 + 6) / 4
    assert arrays["n"] == 7.0  # (4 + 24) / 4
    assert folded.metric_records["metrics"] == {"num-examples": 4.0, "loss": pytest.approx(0.2)}


def test_a_mean_of_one_is_that_one_to_the_bit() -> None:
    value = np.random.default_rng(0).normal(size=50).astype(np.float32)
    arrays = read_arrays(weighted_mean([content({"w": value}, 8)]).array_records["arrays"])
    np.testing.assert_array_equal(arrays["w"], value)  # times and divided by a power of two
    assert arrays["w"].dtype == np.float32


@given(st.lists(st.tuples(st.floats(-10, 10), st.integers(1, 1000)), min_size=1), st.data())
def test_means_of_means_are_the_mean(values: list[tuple[float, int]], data: st.DataObject) -> None:
    contents = [content({"w": [x]}, n, loss=x * x) for x, n in values]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(contents)))))
    pieces = [
        contents[a:b] for a, b in zip([0, *cuts], [*cuts, len(contents)], strict=True) if a < b
    ]
    folded = Reducer(WeightedMean).merge(weighted_mean(piece) for piece in pieces)
    total = sum(n for _, n in values)
    mean = sum(x * n for x, n in values) / total
    assert read_arrays(folded.array_records["arrays"])["w"][0] == pytest.approx(mean, abs=1e-9)
    assert folded.metric_records["metrics"]["num-examples"] == total


@given(st.lists(st.tuples(st.floats(-10, 10), st.integers(1, 1000)), min_size=1, max_size=8))
def test_flowers_own_sums_agree(values: list[tuple[float, int]]) -> None:
    replies = [content({"w": [x]}, n, loss=x) for x, n in values]
    messages = [Message(reply, dst_node_id=node_id_of(k), message_type="train")
                for k, reply in enumerate(replies)]  # fmt: skip
    whole, metrics = FedAvg().aggregate_train(1, messages)
    parts = Message(weighted_mean(replies), dst_node_id=node_id_of(0), message_type="train")
    ours, our_metrics = Averaging(seed=0).aggregate_train(1, [parts])
    assert whole is not None
    assert ours is not None
    assert metrics is not None
    assert our_metrics is not None
    np.testing.assert_allclose(ours["w"].numpy(), whole["w"].numpy(), rtol=1e-9, atol=1e-9)
    assert our_metrics["loss"] == pytest.approx(metrics["loss"], abs=1e-9)


def test_clients_count_alike_if_asked_for_as_parts_and_one_by_one() -> None:
    replies = [content({"w": [x]}, n, loss=x) for x, n in ((1.0, 1), (2.0, 50), (6.0, 9))]
    of_clients = Reducer(partial(WeightedMean, "clients"))
    parts = [of_clients.fold(replies[:2]), of_clients.fold(replies[2:])]
    assert of_clients.merge(parts).metric_records["metrics"]["num-examples"] == 3
    strategy = Averaging(seed=0, weigh_by="clients")
    for contents in ([of_clients.merge(parts)], replies):
        asked = [Message(each, dst_node_id=node_id_of(k), message_type="train")
                 for k, each in enumerate(contents)]  # fmt: skip
        one = len(contents) == 1
        messages = [part_message(each, q) if one else Message(each, reply_to=q)
                    for each, q in zip(contents, asked, strict=True)]  # fmt: skip
        arrays, metrics = strategy.aggregate_train(1, messages)
        assert arrays is not None
        assert metrics is not None
        assert arrays["w"].numpy() == pytest.approx([3.0])  # (1 + 2 + 6) / 3
        assert metrics["loss"] == pytest.approx(3.0)
        evaluated = strategy.aggregate_evaluate(1, messages)
        assert evaluated is not None
        assert evaluated["loss"] == pytest.approx(3.0)
    assert replies[1].metric_records["metrics"]["num-examples"] == 50
    with pytest.raises(ValueError, match="strategy.weigh_by=size: expected one of"):
        Averaging(seed=0, weigh_by="size")  # type: ignore[arg-type]


def test_what_cannot_be_averaged_is_named() -> None:
    asked = Message(content({"w": [1.0]}, 1), dst_node_id=node_id_of(0), message_type="train")
    w = ArrayRecord({"w": Array(np.array([1.0]))})
    odd = [
        (content({"v": [1.0]}, 1), "arrays are named ['v'], expected ['w']"),
        (content({"w": [[1.0]]}, 1), "'w' has shape (1, 1), expected (1,)"),
        (RecordDict({"m": MetricRecord({"num-examples": 1})}), "0 array records, expected 1"),
        (RecordDict({"w": w, "a": MetricRecord(), "b": MetricRecord()}), "2 metric records"),
        (RecordDict({"w": w, "a": MetricRecord({"loss": 1})}), "one with 'num-examples'"),
        (content({"w": [1.0]}, 1, curve=[1.0, 2.0]), "['curve'] are lists"),
    ]
    for reply, said in odd:
        assert said in str(unlike_request(asked, Message(reply, reply_to=asked)))
    good = Message(content({"w": [2.0]}, 1, loss=1.0), reply_to=asked)
    assert unlike_request(asked, good) is None


def test_a_metric_that_not_all_have_is_left_out() -> None:
    parts = [content({"w": [1.0]}, 10, a=1.0, b=2.0), content({"w": [3.0]}, 30, b=4.0)]
    merged = Reducer(WeightedMean).merge(weighted_mean([part]) for part in parts)
    for folded in (weighted_mean(parts), merged):
        [metrics] = folded.metric_records.values()
        assert dict(metrics) == {"b": 3.5, "num-examples": 40.0}


def test_it_keeps_nothing_between_rounds() -> None:
    assert dict(strategy_state(Averaging(seed=0))) == {}


# --- in a federation ---


@pytest.mark.parametrize("group_size", [1, 2, 4])
def test_foreign_clients_are_averaged_by_hand(foreign_pool: Pool, group_size: int) -> None:
    grid = PoolGrid(foreign_pool, ["a", "a", "b", "a"], group_size=group_size)
    run = run_foreign(foreign_pool, Averaging(seed=0), vector(), grid=grid)
    # Offsets 1, 2, 4, 8 with 1, 2, 3, 4 examples: (1 + 4 + 12 + 32) / 10.
    np.testing.assert_allclose(run.parameters["w"], [4.9, 4.9])
    assert run.reports[0].train["train-loss"] == pytest.approx(2.0)  # (0 + 2 + 6 + 12) / 10
    assert [e.client_id for e in run.reports[0].exchanges] == [0, 1, 2, 3] * 2
    assert all(e.reply_bytes > 0 for e in run.reports[0].exchanges)


@pytest.mark.parametrize("group_size", [1, 3])
def test_a_client_that_fails_is_left_out_of_its_group(foreign_pool: Pool, group_size: int) -> None:
    for fault, said in (("raise@2", "no disk left"), ("nan@2", "not finite"), ("shape@2", "shape")):
        grid = PoolGrid(foreign_pool, ["a"] * 4, group_size=group_size)
        run = run_foreign(foreign_pool, Averaging(seed=0), vector(fault), grid=grid)
        [failed] = [e for e in run.reports[0].exchanges if e.failure and e.phase == "train"]
        assert failed.client_id == 2
        assert said in failed.failure
        # (1 * 1 + 2 * 2 + 8 * 4) / 7
        np.testing.assert_allclose(run.parameters[fault], [37 / 7] * 2)


def test_replies_that_all_fail_are_no_average(foreign_pool: Pool) -> None:
    grid = PoolGrid(foreign_pool, ["a"] * 4, group_size=2)
    grid.begin_round(1)
    reducer = Reducer(WeightedMean)
    asked = [
        Message(
            RecordDict({"arrays": vector("nan@99"), "config": ConfigRecord()}),
            dst_node_id=node_id_of(k),
            message_type="train",
        )
        for k in range(4)
    ]
    replies = list(grid.send_and_fold(asked, reducer))
    assert len(replies) == 4
    assert all(reply.has_error() for reply in replies)


class Failing(WeightedMean):
    """Fails where it is asked to."""

    def __init__(self, where: str) -> None:
        super().__init__()
        setattr(self, where, self._fail)

    def _fail(self, *words: Any) -> Any:
        raise ZeroDivisionError("my rule")


@pytest.mark.parametrize("where", ["add", "part"])
def test_a_rule_that_fails_ends_the_run_with_its_traceback(foreign_pool: Pool, where: str) -> None:
    grid = PoolGrid(foreign_pool, ["a"] * 4, group_size=2)
    grid.begin_round(1)
    reducer = Reducer(partial(Failing, where))
    content = RecordDict({"arrays": vector(), "config": ConfigRecord()})
    asked = [Message(content, dst_node_id=node_id_of(k), message_type="train") for k in range(4)]
    with pytest.raises(
        RuntimeError, match=r"(?s)rule failed where clients run:.*ZeroDivisionError: my rule"
    ):
        grid.send_and_fold(asked, reducer)


def test_clients_of_the_student_are_averaged_as_flower_does() -> None:
    clients = populations()[5]
    ours = run_ours(inline(everyone()), clients, Averaging(seed=0), rounds=2)
    theirs = run_ours(inline(everyone()), clients, FedAvg(), rounds=2)
    for name, value in theirs.parameters.items():
        np.testing.assert_allclose(ours.parameters[name], value, rtol=1e-5, atol=1e-7)
    assert ours.reports[1].student == pytest.approx(theirs.reports[1].student, abs=1e-5)


def test_the_cohort_is_a_share_and_at_least_one() -> None:
    run = run_foreign(
        inline(foreign_app()), Averaging(seed=3, fraction_train=0.5), vector(), rounds=4
    )
    assert all(len(cohort) == 2 for cohort in run.cohorts())
    assert len({tuple(cohort) for cohort in run.cohorts()}) > 1
    tiny = Averaging(seed=3, fraction_train=0.01, fraction_evaluate=0.0)
    assert [len(c) for c in run_foreign(inline(foreign_app()), tiny, vector()).cohorts()] == [1]
    for wrong in ({"fraction_train": 0.0}, {"fraction_train": 1.5}, {"fraction_evaluate": -0.1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Averaging(seed=0, **wrong)
