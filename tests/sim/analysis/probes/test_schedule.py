"""When a probe is asked, what of, and that YAML plugs it."""

from functools import partial
from typing import Any

import pytest
import torch

from conf.building import instantiate
from sim.analysis.probes import (
    Every,
    Forgetting,
    ProbeError,
    calibration,
    output_drift,
    parameter_drift,
    recall_spread,
    representation_drift,
    teacher_audit,
    trust,
)
from sim.analysis.probes.asking import Asking
from tests.composing import composed
from tests.federations import tiny_clients
from tests.views import labelled, view


def test_every_asks_in_round_one_and_then_each_so_many() -> None:
    asked = [
        r
        for r in range(1, 10)
        if Every(rounds=4, probe=lambda v: {"x": 1.0})(view(torch.ones(1, 1), server_round=r))
    ]
    assert asked == [1, 5, 9]
    assert Every(rounds=0, probe=lambda v: {"x": 1.0})(view(torch.ones(1, 1))) == {}


def test_every_shipped_probe_is_plugged_by_yaml() -> None:
    config = composed("probes=with_features")
    found = {str(name): instantiate(node) for name, node in config.probes.items()}
    named = {
        *(trust, output_drift, parameter_drift, recall_spread, calibration, teacher_audit),
        representation_drift,
    }
    plugged = {getattr(probe, "func", type(probe)) for probe in found.values()}
    assert plugged == {*named, Forgetting, Every}  # all that sim.analysis.probes has
    assert len(found) == 9
    values = {k for probe in found.values() for k in probe(labelled())}
    assert {"output_js", "js_matrix", "ece", "weight_mass", "recall", "lost_recall"} <= values


def of_two(network: Any, inputs: Any) -> dict[str, float]:
    return {}


def of_three(network: Any, inputs: Any, labels: Any) -> dict[str, float]:
    return {}


def of_a_view(view: Any, *, share: float = 0.5) -> dict[str, float]:
    return {"x": share}


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (of_three, r"probes\.mine takes network, inputs, labels \(missing a required argument: "
         r"'inputs'\), expected a function of a round's view; .* of: \{_target_: "),
        (partial(of_two, network=1), r"probes\.mine takes network, inputs"),
        ({"x": 1.0}, r"probes\.mine is dict, expected a function of a round's view"),
    ],
    ids=["asking", "bound", "called"],
)  # fmt: skip
def test_what_takes_no_view_is_refused_before_round_one(probe: Any, message: str) -> None:
    """It trained for a round first."""
    with pytest.raises(ProbeError, match=message):
        Asking({"mine": probe}, tiny_clients(2), True, ())
    Asking({"mine": of_a_view, "named": partial(of_a_view, share=1)}, tiny_clients(2), True, ())
    if callable(probe):
        with pytest.raises(ProbeError, match=r"Every: probe takes network, inputs"):
            Every(rounds=2, probe=probe)
