"""How far answers lie apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sim.analysis.drift import disagreement, jensen_shannon
from sim.analysis.probes import Table, output_drift, output_matrices
from tests.views import random_probs, view

# --- output space ---


def test_output_drift_is_the_mean_over_examples() -> None:
    # First example: the known pair, votes differ; second: both say the same.
    pair = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    probs = torch.stack([pair, torch.tensor([[0.5, 0.3, 0.2]] * 2)], dim=1)
    values = output_drift(view(torch.full((2, 2), 0.5), probs.log()))
    assert values["output_disagreement"] == 0.5
    assert values["output_js"] == pytest.approx(0.222923 / 2, abs=1e-6)
    assert values["js_to_ensemble"].values.mean() == pytest.approx(0.222923 / 2, abs=1e-6)
    mean = np.array([0.4, 0.5, 0.1])
    kl = [
        float((mean * np.log(mean / own)).sum()) / 2 for own in ([0.7, 0.2, 0.1], [0.1, 0.8, 0.1])
    ]
    assert values["kl_to_ensemble"].values.tolist() == pytest.approx(kl, abs=1e-6)
    assert values["output_kl"] == pytest.approx(sum(kl) / 2, abs=1e-6)


def test_output_drift_takes_its_examples_a_few_at_a_time() -> None:
    # 40 examples are three pieces; by hand they are one.
    probs = random_probs(4, 40)
    values = output_drift(view(torch.full((4, 40), 0.25), probs.log()))
    assert values["output_disagreement"] == pytest.approx(float(disagreement(probs).mean()))
    assert values["output_js"] == pytest.approx(float(jensen_shannon(probs).mean()))


def test_matrices_are_of_clients_spread_over_the_cohort() -> None:
    found = output_matrices(view(torch.full((9, 4), 1 / 9), random_probs(9, 4)), most_clients=3)
    for table in found.values():
        assert isinstance(table, Table)
        assert table.values.shape == (3, 3)
        assert list(table.row_names) == list(table.column_names) == [10, 14, 18]


# --- with labels ---


def test_drift_of_answers_with_gaps_by_hand() -> None:
    """Of three clients one left out the first example, another the second."""
    known = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    probs = torch.stack([known[[0, 0]], known[[1, 1]], known[[1, 0]]])  # [3, 2, 3]
    mask = torch.tensor([[True, True], [True, False], [False, True]])
    seen = view(torch.full((3, 2), 0.5), probs.log())
    found = output_drift(replace(seen, teachers=replace(seen.teachers, mask=mask)))
    # First: the known pair; second: clients 0 and 2, who say the same.
    assert found["output_js"] == pytest.approx(0.222923 / 2, abs=1e-6)
    assert found["output_disagreement"] == pytest.approx(0.5)
    assert found["disagreement"].values.tolist() == pytest.approx([0.5, 1, 0])
    assert found["js_to_ensemble"].values[2] == pytest.approx(0, abs=1e-7)
    matrices = output_matrices(replace(seen, teachers=replace(seen.teachers, mask=mask)))
    apart = matrices["js_matrix"].values
    assert apart[0].tolist() == pytest.approx([0, 0.222923, 0], abs=1e-6)
    assert np.isnan(apart[1, 2])  # no example that both answered
    assert matrices["disagreement_matrix"].values[0].tolist() == [0, 1, 0]
