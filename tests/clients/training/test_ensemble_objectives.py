"""Fed-ET's objective: the consensus as a hard label, and those who say another class, by hand."""

from functools import partial
from math import log

import pytest
import torch
from torch import Tensor

from clients.training.ensemble_objectives import consensus_and_diversity
from clients.training.losses import kl
from clients.training.objective import Outputs
from strategies.aggregation.scorers import variance
from tests.asking import round_of


def loss_of(student: Tensor, teachers: Tensor, weights: Tensor, **numbers: float) -> Tensor:
    """The loss of each example, of teachers that say probabilities [K, N, C]."""
    targets = (weights[..., None] * teachers).sum(0)
    outputs = Outputs(student, student, rows=torch.arange(len(student)))
    anchors = {"logits": teachers.log(), "weights": weights}
    objective = consensus_and_diversity(**numbers)
    loss = partial(objective.loss, temperature=1.0)  # type: ignore[call-arg]
    return loss(outputs, targets, anchors)


def test_consensus_and_diversity_by_hand() -> None:
    """Weights (.3875, .6125) make (.3325, .5675, .1): class 1, and the first says another.

    A student that knows nothing loses ln 3, and .05 KL((.7, .2, .1) || 1/3).
    """
    teachers = torch.tensor([[[0.7, 0.2, 0.1]], [[0.1, 0.8, 0.1]]])
    weights = torch.tensor([[0.3875], [0.6125]])
    found = loss_of(torch.zeros(1, 3), teachers, weights)
    other = 0.7 * log(2.1) + 0.2 * log(0.6) + 0.1 * log(0.3)
    assert found.item() == pytest.approx(log(3) + 0.05 * other, abs=1e-6)


def test_where_all_agree_there_is_only_the_label() -> None:
    teachers = torch.tensor([[[0.6, 0.4], [0.6, 0.4]], [[0.9, 0.1], [0.1, 0.9]]])
    weights = torch.tensor([[0.5, 0.2], [0.5, 0.8]])
    student = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    found = loss_of(student, teachers, weights, diversity_weight=2.0)
    hard = torch.nn.functional.cross_entropy(student, torch.tensor([0, 1]), reduction="none")
    soft = kl(student[1:], torch.tensor([[0.6, 0.4]]), 1.0)
    torch.testing.assert_close(found, hard + torch.stack([torch.tensor(0.0), 2 * soft[0]]))
    (gradient,) = torch.autograd.grad(found.sum(), student)
    assert gradient.isfinite().all()


def test_others_count_by_their_weights() -> None:
    teachers = torch.tensor([[[0.0, 0.9, 0.1]], [[0.2, 0.1, 0.7]], [[0.8, 0.1, 0.1]]])
    weights = torch.tensor([[0.1], [0.3], [0.6]])
    student = torch.tensor([[0.3, 0.1, -0.2]])
    mean = (teachers[0] + 3 * teachers[1]) / 4
    found = loss_of(student, teachers.clamp_min(1e-9), weights, diversity_weight=1.0)
    hard = torch.nn.functional.cross_entropy(student, torch.tensor([0]), reduction="none")
    torch.testing.assert_close(found, hard + kl(student, mean, 1.0), atol=1e-5, rtol=1e-5)


def test_a_student_learns_by_it_and_the_weight_counts() -> None:
    found = [
        round_of(scorer=variance, loss=consensus_and_diversity(weight))[0].sha256
        for weight in (0.0, 0.05, 5.0)
    ]
    assert len({*found}) == 3


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"strategy\.loss\.diversity_weight=-1"):
        consensus_and_diversity(-1)
