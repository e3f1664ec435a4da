"""Recall of each client by class."""

import math
from dataclasses import replace

import pytest
import torch

from sim.analysis.probes import recall_spread
from tests.views import labelled


def test_recall_of_answers_with_gaps_is_of_what_was_answered() -> None:
    seen = labelled()  # classes (0, 1, 2, 2); the second client is right on the last only
    mask = torch.tensor([[True] * 4, [False, True, False, True]])
    found = recall_spread(replace(seen, teachers=replace(seen.teachers, mask=mask)))
    table = found["recall"].values
    assert table[1].tolist() == pytest.approx([math.nan, 0, 1], nan_ok=True)
    # Deviations over clients: class 0 of one value, 1 of (1, 0), 2 of (.5, 1)
    assert found["recall_spread"] == pytest.approx((0 + 0.5 + 0.25) / 3)


def test_recall_spread_by_hand() -> None:
    found = recall_spread(labelled())
    # Recalls (1, 1, .5) and (0, 0, .5), the student's (1, 1, 0).
    assert found["recall_spread"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert found["recall_gap"].values.tolist() == pytest.approx([0.5 / 3, -1.5 / 3])
    assert found["worst_recall_gap"] == pytest.approx(-0.5)
    assert found["recall"].values.tolist() == [[1, 1, 0.5], [0, 0, 0.5], [1, 1, 0]]
    assert list(found["recall"].row_names) == [10, 11, "student"]
