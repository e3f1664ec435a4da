"""A student's objective compares with all answers, in the order of the examples."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from clients.messages import shipped_fields
from clients.messages.answers import Answers
from clients.messages.field import Field
from clients.training.losses import kl
from clients.training.objective import Anchors, Objective, Outputs
from strategies.aggregation.scorers import max_prob, uniform
from tests.asking import round_of, said_energy
from tests.federations import distillation
from tests.federations import tiny_clients as clients_of

ENERGY = {"energy": Field(said_energy)}
COUNTS = {"class_counts": shipped_fields.class_counts()}


def by_hand(outputs: Outputs, targets: Tensor, anchors: Anchors, *, temperature: float) -> Tensor:
    """Imitate, and see that anchors are in the order of the examples."""
    probs = anchors["logits"][:, outputs.rows].softmax(-1)
    weights = anchors["weights"][:, outputs.rows]
    torch.testing.assert_close((weights[..., None] * probs).sum(0), targets)
    assert anchors["energy"][:, outputs.rows].shape == weights.shape
    assert anchors["class_counts"].shape[1:] == (4,)
    return kl(outputs.logits, targets, temperature)


NAMES = ("logits", "weights", "energy", "class_counts")


def half_silent(answers: Answers) -> Tensor:
    """Leave every example that client 0 is unsure of to nobody: it is dropped."""
    sure = max_prob(answers)
    return sure * (sure[:1] > 0.5)


@pytest.mark.parametrize("scorer", [uniform, half_silent])
def test_an_objective_compares_with_all_answers(scorer: Any) -> None:
    ask = ENERGY | COUNTS
    objective = Objective(by_hand, anchors=NAMES)
    run_, view = round_of(scorer=scorer, ask=ask, loss=objective)
    plain, _ = round_of(scorer=scorer, ask=ask)
    for name, array in plain.parameters.items():
        np.testing.assert_allclose(run_.parameters[name], array, atol=1e-5)
    assert bool((view.weights.sum(0) == 0).any()) == (scorer is half_silent)


def multi_teacher(
    outputs: Outputs, targets: Tensor, anchors: Anchors, *, temperature: float
) -> Any:
    """sum_k w_k CE(q_k, p): the gradient of CE(sum_k w_k q_k, p)."""
    rows = outputs.rows
    probs, weights = anchors["logits"][:, rows].softmax(-1), anchors["weights"][:, rows]
    each = torch.stack([cross_entropy(outputs.logits, p, reduction="none") for p in probs])
    return (weights * each).sum(0)


def test_learning_from_each_teacher_is_learning_from_their_mean() -> None:
    each, _ = round_of(
        scorer=max_prob, loss=Objective(multi_teacher, anchors=("logits", "weights"))
    )
    mean, _ = round_of(scorer=max_prob)
    for name, array in mean.parameters.items():
        np.testing.assert_allclose(each.parameters[name], array, atol=1e-5)


def test_an_anchor_that_nobody_is_asked_for_is_refused_by_name() -> None:
    objective = Objective(by_hand, anchors=("energies",))
    with pytest.raises(ValueError, match=r"anchor 'energies' is not among weights, logits, energy"):
        distillation(clients_of(), ask=ENERGY, loss=objective)
