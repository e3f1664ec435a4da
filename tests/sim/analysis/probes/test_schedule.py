"""When a probe is asked, and that YAML plugs it."""

import torch

from conf.building import instantiate
from sim.analysis.probes import (
    Every,
    Forgetting,
    calibration,
    output_drift,
    parameter_drift,
    recall_spread,
    representation_drift,
    teacher_audit,
    trust,
)
from tests.composing import composed
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
