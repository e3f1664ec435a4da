"""What replies are weighed by, and the record of the arrays, may have any name."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord
from flwr.app import RecordDict as Content
from flwr.serverapp import strategy as flower

from clients.messages.arrays import write_arrays
from sim.engine.quorum import QuorumLost
from tests.federations import Run, inline, run_foreign

START = ArrayRecord({"w": Array(np.zeros(2, np.float32)), "mean": Array(np.ones(2, np.float32))})
LONE = {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1}


class Weighing:
    """Client k answers k + 1 in every place, and these metrics."""

    def __init__(self, *metrics: dict[str, Any], record: str = "arrays") -> None:
        self.metrics, self.record = metrics, record

    def __call__(self, message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        content = Content({"metrics": MetricRecord(self.metrics[client])})
        if message.metadata.message_type == "train":
            values = np.full(2, client + 1, np.float32)
            content[self.record] = write_arrays({"w": values, "mean": values})
        return Message(content, reply_to=message)


def run(app: Weighing, strategy: Any, **options: Any) -> Run:
    options = {"quorum": 0.3, "buffers": {"mean"}} | options
    return run_foreign(inline(app), strategy, START, size=len(app.metrics), **options)


def masses(*values: float) -> list[dict[str, Any]]:
    return [{"mass": value, "train-loss": 0.5} for value in values]


@pytest.mark.parametrize("buffers", [{"mean"}, set()])
def test_arrays_and_buffers_are_averaged_by_the_weight_that_the_strategy_names(
    buffers: set[str],
) -> None:
    both = [{"mass": 0.25, "num-examples": 900}, {"mass": 0.75, "num-examples": 1}]
    for metrics in (masses(0.25, 0.75), both):
        ran = run(Weighing(*metrics), flower.FedAvg(weighted_by_key="mass"), buffers=buffers)
        for array in ran.parameters.values():
            np.testing.assert_allclose(array, 1.75)


@pytest.mark.parametrize("odd", [0, 0.0, -3, -1e30, 1e-300, 1e13, [2.0]])
def test_what_is_no_weight_is_refused_by_name(odd: Any) -> None:
    strategy: Any = flower.FedAvg(weighted_by_key="mass", **LONE)
    ran = run(Weighing(*masses(1, odd, 1)), strategy)
    failed = {e.client_id: e.failure for e in ran.reports[0].exchanges if e.failure}
    assert [*failed] == [1]
    assert f"metric 'mass' is {odd}, expected a number from 1e-09 to 1e+12" in failed[1]
    for array in ran.parameters.values():
        np.testing.assert_allclose(array, 2)


def test_what_is_no_weight_is_refused_inside_a_strategy_that_wraps_another() -> None:
    inner = flower.FedAvg(weighted_by_key="mass", **LONE)
    wrapper = flower.DifferentialPrivacyServerSideFixedClipping(inner, 0.0, 1e9, 3)
    ran = run(Weighing(*masses(1, -1e30, 1)), wrapper, buffers=())
    assert {e.client_id for e in ran.reports[0].exchanges if e.failure} == {1}


def test_weights_of_nothing_end_the_run_in_a_line_that_names_them() -> None:
    with pytest.raises(QuorumLost, match=r"only 0 of 2 .*metric 'mass' is 0.0, expected a number"):
        run(Weighing(*masses(0.0, 0.0)), flower.FedAvg(weighted_by_key="mass"))
    for buffers in ({"mean"}, set[str]()):
        with pytest.raises(QuorumLost, match="FedAvg refuses all replies: .*num-examples"):
            run(Weighing(*masses(1, 1)), flower.FedAvg(), buffers=buffers)


def test_buffers_are_averaged_whatever_their_record_is_called() -> None:
    metrics = [{"num-examples": 1}, {"num-examples": 3}]
    strategy = flower.FedAdam(arrayrecord_key="model", eta=0.5)
    ran = run(Weighing(*metrics, record="model"), strategy)
    np.testing.assert_allclose(ran.parameters["mean"], 1.75)
    assert not np.allclose(ran.parameters["w"], 1.75)
