"""Recall and forgetting by hand."""

import math

import pytest
import torch

from sim.analysis.drift import forgetting, lost_recall, recall


def test_recall_by_hand() -> None:
    labels = torch.tensor([0, 0, 1, 1, 1])
    known = recall(torch.tensor([[0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]), labels, 3)
    assert known[:, :2].tolist() == [[0.5, pytest.approx(2 / 3)], [1.0, 0.0]]
    assert known[:, 2].isnan().all()


def test_forgetting_by_hand() -> None:
    best = torch.tensor([[0.9, 0.5, math.nan], [math.nan] * 3])
    now = torch.tensor([[0.4, 0.7, math.nan], [0.1, 0.2, 0.3]])
    assert forgetting(best, now)[0].item() == pytest.approx((0.5 - 0.2) / 2)
    assert lost_recall(best, now)[0].item() == pytest.approx(0.5 / 2)
    assert forgetting(best, now)[1].isnan()
    assert lost_recall(best, now)[1].isnan()
