"""Measures of the ensemble's teachers by hand."""

import pytest
import torch

from sim.analysis.drift import (
    effective_teachers,
    oracle_correct,
    rank_correlation,
    weight_mass,
    wrong_but_confident,
)


def test_effective_teachers_by_hand() -> None:
    weights = torch.tensor([[1.0, 0.5, 0.25], [0, 0.5, 0.25], [0, 0, 0.25], [0, 0, 0.25]])
    assert effective_teachers(weights).tolist() == pytest.approx([1, 2, 4])


def test_weight_mass_by_hand() -> None:
    weights = torch.tensor([[0.2, 0.4, 0.0, 1.0], [0.8, 0.6, 0.0, 0.0]])
    mass = weight_mass(weights, torch.tensor([0, 0, 1, 2]), 4)
    # Nobody covers the example of class 1, there is none of class 3.
    assert mass[:, [0, 2]].tolist() == [pytest.approx([0.3, 1.0]), pytest.approx([0.7, 0.0])]
    assert mass[:, [1, 3]].isnan().all()


def test_oracle_and_wrong_but_confident_by_hand() -> None:
    correct = torch.tensor([[True, False, False], [False, False, True]])
    confidence = torch.tensor([[0.9, 0.9, 0.5], [0.95, 0.8, 1.0]])
    assert oracle_correct(correct).tolist() == [True, False, True]
    fooled = wrong_but_confident(confidence, correct, 0.9)
    assert fooled.tolist() == [[False, True, False], [True, False, False]]


def test_rank_correlation_by_hand() -> None:
    right = torch.tensor([True, True, False, False])
    assert rank_correlation(torch.tensor([0.4, 0.3, 0.2, 0.1]), right) == pytest.approx(
        0.894427, abs=1e-6
    )  # 1 - 6 sum d^2 / ... with ties: cov of ranks (4, 3, 2, 1), (3.5, 3.5, 1.5, 1.5) = 2 / sqrt 5
    assert rank_correlation(torch.tensor([0.1, 0.1, 0.2, 0.2]), right) == pytest.approx(-1)
    assert rank_correlation(torch.full((4,), 0.25), right) is None
    assert rank_correlation(torch.tensor([0.4, 0.6]), torch.tensor([True, True])) is None
    assert rank_correlation(torch.tensor([1.0]), torch.tensor([True])) is None
