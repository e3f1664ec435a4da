"""Neighbours' answers are compared on what both answered."""

import numpy as np
import pytest
import torch

from clients.messages.answers import Answers
from clients.messages.round_views import GraphView
from sim.analysis.probes.neighbours import neighbour_drift


def test_neighbours_are_compared_by_hand() -> None:
    logits = torch.tensor([[[0.0, 0.0]], [[0.0, 0.0]], [[100.0, 0.0]]])
    teachers = Answers((0, 1, 3), logits, torch.ones(3, 1, dtype=torch.bool), None, torch.ones(3))
    everyone = np.ones(4, dtype=np.bool_)
    ends = np.array([0, 1, 3, 2]), np.array([1, 0, 1, 0])  # peer 2 has not answered
    found = neighbour_drift(GraphView(1, *ends, everyone, everyone, teachers))
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    apart = entropy - np.log(2) / 2  # of (1/2, 1/2) and (1, 0)
    assert found["neighbour_js"] == pytest.approx(apart / 2)
    assert found["neighbour_disagreement"] == 0.0


def test_neighbours_are_compared_on_what_both_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    votes = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 1]])
    logits = 100.0 * torch.nn.functional.one_hot(votes, 2)
    mask = torch.tensor([[True, True, False], [True, True, True], [False, True, True]])
    teachers = Answers((0, 1, 2), logits, mask, None, torch.ones(3))
    everyone = np.ones(3, dtype=np.bool_)
    ends = np.array([0, 1, 2]), np.array([1, 2, 0])
    view = GraphView(1, *ends, everyone, everyone, teachers)
    # 0 and 1: differ on the second of two; 0 and 2: on their only one; 1 and 2: on none of two.
    assert neighbour_drift(view)["neighbour_disagreement"] == pytest.approx(2 / 5)
    assert neighbour_drift(view)["neighbour_js"] == pytest.approx(2 / 5 * np.log(2))
    monkeypatch.setattr(
        "sim.analysis.probes.neighbours.MOST_PAIRS", 2
    )  # the first and the last pair
    assert neighbour_drift(view)["neighbour_disagreement"] == pytest.approx(1 / 4)
