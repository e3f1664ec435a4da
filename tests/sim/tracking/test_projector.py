"""Clients as points for TensorBoard's projector."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clients.messages.answers import Answers
from clients.messages.round_views import RoundView
from sim.tracking import projector


def test_equal_answers_are_one_point_and_distances_are_kept(tmp_path: Path) -> None:
    logits = 3 * torch.randn(3, 50, 10, generator=torch.Generator().manual_seed(1))
    logits[1] = logits[0]
    teachers = Answers((4, 5, 9), logits, torch.ones(3, 50, dtype=torch.bool), None, torch.ones(3))
    nothing = torch.zeros(3, 50), torch.zeros(50, 10)
    ids, points = projector.coordinates(RoundView(1, tuple(range(50)), teachers, *nothing, []))
    assert ids == [4, 5, 9]
    assert (points[0] == points[1]).all()
    apart = float((logits.softmax(-1)[0] - logits.softmax(-1)[2]).norm())
    assert np.linalg.norm(points[0] - points[2]) == pytest.approx(apart, rel=3 / 64**0.5)


def test_points_are_of_some_clients_and_of_those_who_answered_everything() -> None:
    logits = torch.randn(100, 4, 3, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(100, 4, dtype=torch.bool)
    teachers = Answers(tuple(range(100)), logits, mask, None, torch.ones(100))
    view = RoundView(1, (0, 1, 2, 3), teachers, mask.float() / 100, torch.zeros(4, 3), [])
    ids, points = projector.coordinates(view)
    assert len(ids) == 64
    assert (ids[0], ids[-1]) == (0, 99)
    again = projector.coordinates(replace(view, server_round=2))[1]
    assert (points == again).all()  # the axes are the same in every round
    mask = mask.clone()
    mask[0, 3] = False
    gap = replace(view, teachers=replace(teachers, mask=mask))
    assert projector.coordinates(gap)[0][0] == 1
