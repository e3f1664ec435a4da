"""Drift of parameters: known updates."""

import pytest
import torch

from sim.analysis.drift import (
    consensus_distance,
    cosine_matrix,
    cosine_to_mean,
    gradient_diversity,
    moments,
    total,
)

UPDATES = torch.tensor([[1.0, 0, 0], [0, 2, 0], [1, 1, 1]])


def test_parameter_drift_of_the_known_updates() -> None:
    of = moments(UPDATES)
    cosines = [0.53452, 0.80178, 0.92582]
    assert cosine_to_mean(of).tolist() == pytest.approx(cosines, abs=5e-6)
    assert gradient_diversity(of) == pytest.approx(0.571429, abs=5e-7)
    assert consensus_distance(of) == pytest.approx(1.111111, abs=5e-7)
    assert of.squared.sqrt().tolist() == pytest.approx([1, 2, 3**0.5])
    pairs = cosine_matrix(UPDATES @ UPDATES.T)
    third = 1 / 3**0.5
    assert pairs.tolist() == [pytest.approx(row) for row in
                              ([1, 0, third], [0, 1, third], [third, third, 1])]  # fmt: skip


def test_layers_add_up_to_the_network() -> None:
    layers = total([moments(UPDATES[:, :1]), moments(UPDATES[:, 1:])])
    for one, whole in zip(vars(layers).values(), vars(moments(UPDATES)).values(), strict=True):
        torch.testing.assert_close(one, whole)


@pytest.mark.parametrize("num_clients", [1, 2, 7])
def test_equal_updates_have_no_distance_and_least_diversity(num_clients: int) -> None:
    of = moments(torch.tensor([[1.0, 2.0]]).expand(num_clients, 2))
    assert consensus_distance(of) == 0
    assert gradient_diversity(of) == pytest.approx(1 / num_clients)
    assert cosine_to_mean(of).tolist() == pytest.approx([1.0] * num_clients)
