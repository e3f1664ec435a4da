"""Features from clients that measure otherwise than they were asked."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from clients.handlers.feature_probes import EVALUATE_FEATURES, feature_request, read_features
from clients.messages.arrays import write_arrays
from clients.messages.requests import client_id_of, node_id_of
from clients.messages.round_views import RoundView
from clients.population.clients import SimulatedClients
from sim.analysis.probes import representation_drift
from tests.federations import Run, distillation, inline, run_ours, simulated, tiny_clients


def told_otherwise(clients: SimulatedClients, features: Any) -> Run:
    """Clients 0 and 1 send something else where features are asked for, or raise."""
    app = simulated(clients)
    served = app.serve

    def serve(requests: Any, contexts: Any, device: str = "cpu") -> Any:
        for request, answer in zip(requests, served(requests, contexts, device), strict=True):
            fails = client_id_of(request.metadata.dst_node_id) < 2
            asked = request.metadata.message_type == EVALUATE_FEATURES.kind
            yield features(request) if fails and asked else answer

    app.serve = serve  # type: ignore[method-assign]
    found = list[Mapping[str, Any]]()

    def report(view: RoundView) -> None:
        found.append(representation_drift(view, most_clients=4))

    run = run_ours(inline(app), clients, distillation(clients, report=report), quorum=1.0)
    (values,) = found
    assert np.isnan(values["cka_with_student"].values).tolist() == [True, True, False, False]
    return run


def with_features(request: Message, features: Any) -> Message:
    return Message(RecordDict({"features": write_arrays({"features": features})}), reply_to=request)


@pytest.mark.parametrize(
    ("features", "why"),
    [
        (lambda asked: RuntimeError("no features here"), "no features here"),
        (lambda asked: with_features(asked, np.zeros((2, 3), np.float32)), r"\(2, 3\), expected"),
        (lambda asked: with_features(asked, np.zeros(30, np.float32)), r"float32 \(30,\)"),
        (lambda asked: with_features(asked, np.full((30, 2), np.nan, np.float32)), "not finite"),
        (lambda asked: Message(RecordDict({}), reply_to=asked), "lacks 'features'"),
    ],
)
def test_features_that_are_none_end_no_run_and_break_no_quorum(features: Any, why: str) -> None:
    run = told_otherwise(tiny_clients(4), features)
    failed = [exchange for exchange in run.grid.exchanges if exchange.failure]
    assert [exchange.client_id for exchange in failed] == [0, 1]
    for exchange in failed:
        assert re.search(why, exchange.failure), exchange.failure


def test_features_are_looked_at_where_they_are_read_too() -> None:
    """Flower's own grid screens nothing."""
    asked = [
        Message(feature_request(np.arange(3)), dst_node_id=node_id_of(k),
                message_type=EVALUATE_FEATURES.kind)
        for k in range(3)
    ]  # fmt: skip
    arrays = [np.zeros((3, 2), np.float32), np.zeros((2, 2), np.float32),
              np.full((3, 2), np.inf, np.float32)]  # fmt: skip
    for number, one in enumerate(asked):
        one.metadata.__dict__["_message_id"] = str(number)
    replies = [with_features(one, array) for one, array in zip(asked, arrays, strict=True)]
    assert list(read_features(replies, 3)) == [0]
