"""How far parameters lie apart."""

import math

import numpy as np
import pytest
import torch

from clients.messages.round_views import ClientParameters
from sim.analysis.probes import parameter_drift
from tests.views import view


def test_parameter_drift_of_the_known_updates() -> None:
    before = {"a": np.ones((1, 1)), "b": np.ones(2, np.float32), "n": np.ones(2, np.int64),
              "bn.running_var": np.ones(3)}  # fmt: skip
    deltas = np.array([[1.0, 0, 0], [0, 2, 0], [1, 1, 1]])
    after = [
        {"a": before["a"] + d[:1], "b": before["b"] + d[1:], "n": before["n"] * 9,
         "bn.running_var": before["bn.running_var"] * 9}
        for d in deltas
    ]  # fmt: skip
    seen = view(torch.zeros(3, 0), parameters=ClientParameters(before, after))
    found = parameter_drift(seen)
    assert found["gradient_diversity"] == pytest.approx(0.571429, abs=5e-7)
    assert found["consensus_distance"] == pytest.approx(1.111111, abs=5e-7)
    assert found["cosine_to_mean"].values.tolist() == pytest.approx(
        [0.53452, 0.80178, 0.92582], abs=5e-6
    )
    assert found["update_norm"].values.tolist() == pytest.approx([1, 2, 3**0.5])
    assert found["relative_update_norm"].values.tolist() == pytest.approx(
        [1 / 3**0.5, 2 / 3**0.5, 1]
    )
    layers = found["cosine_to_mean_by_layer"]
    assert list(layers.row_names) == ["a", "b"]
    assert layers.values[0].tolist() == pytest.approx([1, math.nan, 1], nan_ok=True)
    assert found["update_cosines"].values[0, 2] == pytest.approx(1 / 3**0.5)


def test_large_layers_are_looked_at_a_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    before = {"a": rng.normal(size=(5, 7)), "b": rng.normal(size=3)}
    after = [{k: v + rng.normal(size=v.shape) for k, v in before.items()} for _ in range(4)]
    seen = view(torch.zeros(4, 0), parameters=ClientParameters(before, after))
    whole = parameter_drift(seen)
    monkeypatch.setattr(
        "sim.analysis.probes.parameters.NUMBERS_AT_ONCE", 4 * 8
    )  # pieces of 8 of 35
    pieces = parameter_drift(seen)
    for name in ("gradient_diversity", "consensus_distance"):
        assert pieces[name] == pytest.approx(whole[name], rel=1e-12)
    for name in ("update_norm", "cosine_to_mean", "cosine_to_mean_by_layer", "update_cosines"):
        np.testing.assert_allclose(pieces[name].values, whole[name].values, rtol=1e-12)
    with monkeypatch.context() as fewer:
        fewer.setattr("sim.analysis.probes.parameters.NUMBERS_AT_ONCE", 1)  # never none at a time
        np.testing.assert_allclose(
            parameter_drift(seen)["update_norm"].values, whole["update_norm"].values, rtol=1e-12
        )
