"""Features of those who are asked, compared."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from clients.handlers.feature_probes import EVALUATE_FEATURES
from clients.messages.round_views import RoundView
from sim.analysis.drift import linear_cka
from sim.analysis.probes import representation_drift
from tests.federations import distillation, open_pool, run_ours, simulated, tiny_clients


def cka_by_hand(view: RoundView) -> dict[str, Any]:
    """A user's probe, which asks two of the clients."""
    assert view.features is not None
    features = view.features([0, 2])
    return {f"cka_{k}": linear_cka(features.student, x) for k, x in features.clients.items()}


@pytest.mark.parametrize("kind", ["inline", "ray"])
def test_features_come_from_those_who_are_asked(kind: str) -> None:
    clients, found = tiny_clients(4), list[Mapping[str, Any]]()

    def report(view: RoundView) -> None:
        found.append(cka_by_hand(view) | dict(representation_drift(view, most_clients=2)))

    with open_pool(kind, simulated(clients)) as pool:
        run = run_ours(pool, clients, distillation(clients, report=report))
    asked = [e.client_id for e in run.grid.exchanges if e.phase == EVALUATE_FEATURES.kind]
    assert asked == [0, 2, 0, 3]
    (values,) = found
    # A linear classifier's feature is its input, for the student's and for any client.
    assert values["cka_0"] == values["cka_2"] == pytest.approx(1)
    both = values["cka_with_student"].values
    assert both[0] == pytest.approx(1)
    assert np.isnan(both[1:3]).all()
    assert -1 < both[3] < 0.999
    assert values["cka_with_student_mean"] == pytest.approx((1 + both[3]) / 2)
    assert list(values["cka_matrix"].row_names) == [0, 3, "student"]
