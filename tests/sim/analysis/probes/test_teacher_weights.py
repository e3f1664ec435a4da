"""Whom the ensemble trusts, and how it answers where labels are known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sim.analysis.probes import teacher_audit, trust
from tests.views import labelled, view

# --- trust ---


@pytest.mark.parametrize("num_clients", [1, 2, 5])
def test_trust_of_uniform_weights_is_log_k(num_clients: int) -> None:
    values = trust(view(torch.full((num_clients, 7), 1 / num_clients)))
    assert values["weight_entropy"] == pytest.approx(math.log(num_clients), abs=1e-6)
    assert values["effective_teachers"] == pytest.approx(num_clients)
    assert values["largest_weight"] == pytest.approx(1 / num_clients, abs=1e-6)
    assert values["weight"].values.tolist() == pytest.approx([1 / num_clients] * num_clients)


def test_trust_of_one_deciding_teacher_is_zero() -> None:
    values = trust(view(torch.eye(3)[:, [0, 1, 2, 2]]))
    assert values.pop("weight").values.tolist() == [0.25, 0.25, 0.5]
    assert values == {"weight_entropy": 0.0, "effective_teachers": 1.0, "largest_weight": 1.0}


def test_trust_counts_covered_examples_only() -> None:
    # Entropies ln 2 and 0, and an example that nobody covers
    weights = torch.tensor([[0.5, 1.0, 0.0], [0.5, 0.0, 0.0]])
    values = trust(view(weights))
    assert values["weight_entropy"] == pytest.approx(math.log(2) / 2, abs=1e-6)
    assert values["effective_teachers"] == pytest.approx(1.5, abs=1e-6)
    assert values["largest_weight"] == pytest.approx(0.75, abs=1e-6)


# --- with labels ---


def test_the_audit_by_hand() -> None:
    found = teacher_audit(labelled(), confident=0.85)
    assert found["ensemble_right"] == 0.75
    assert found["student_right"] == 0.5
    assert found["oracle_right"] == 1.0
    assert found["right_weight"] == pytest.approx((3 * 0.8 + 0.2) / 4)
    # One of four answers of the first client is wrong, and sure; the second is never sure.
    assert found["wrong_but_confident"] == pytest.approx(1 / 8)
    assert found["wrong_but_confident_rate"].values.tolist() == [0.25, 0.0]
    # Trusted and right 3 of 4, else right 1 of 4: the 2 x 2 table's correlation is 0.5.
    assert found["weight_correctness_spearman"] == pytest.approx(0.5)
    assert found["weight_mass"].values == pytest.approx(np.array([[0.8] * 3, [0.2] * 3]))
    assert found["teacher_error"].values.tolist() == [[0, 0, 0.5], [1, 1, 0.5]]


def test_what_is_masked_is_no_answer_to_the_audit() -> None:
    seen = labelled()
    mask = torch.tensor([[True] * 4, [False] * 4])
    found = teacher_audit(replace(seen, teachers=replace(seen.teachers, mask=mask)))
    assert found["oracle_right"] == 0.75
    assert np.isnan(found["teacher_error"].values[1]).all()
    assert np.isnan(found["wrong_but_confident_rate"].values[1])
