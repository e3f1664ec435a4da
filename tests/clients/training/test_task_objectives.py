"""Distillation of tasks with several rows of answers: what rows cost as what examples cost."""

from functools import partial

import pytest
import torch
from torch import Tensor

from clients.data import Task, classification, dense_labelling, several_heads
from clients.training.losses import kl, mse
from clients.training.objective import Objective, OnLogits, Outputs, proximal
from clients.training.task_objectives import of_examples

TASKS = [dense_labelling((1, 2, 2), 3), several_heads((4,), {"a": 3, "b": 2, "c": 3})]
KL = partial(kl, temperature=2.0)


def case(task: Task) -> tuple[Tensor, Tensor]:
    """Outputs of two examples, and targets of each of their rows."""
    rng = torch.Generator().manual_seed(0)
    outputs = torch.randn(2, *task.output_shape, generator=rng, dtype=torch.float64)
    others = torch.randn(2, *task.output_shape, generator=rng, dtype=torch.float64)
    return outputs, task.by_input(task.answers(others).softmax(-1))


def test_a_task_of_one_row_leaves_a_loss_as_it_is() -> None:
    objective = Objective(OnLogits(KL))
    for each in (KL, objective):
        assert of_examples(each, classification((4,), 3)) is each


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("loss", [KL, partial(mse, temperature=1.0)], ids=["kl", "mse"])
def test_an_example_costs_the_mean_of_its_rows(task: Task, loss: partial[Tensor]) -> None:
    outputs, targets = case(task)
    found = of_examples(loss, task)(outputs, targets)
    rows = loss(task.answers(outputs), targets.flatten(0, 1))
    torch.testing.assert_close(found, rows.view(2, task.sites).mean(1))
    if task.alike or loss is KL:  # the fill of unlike heads is of no size that mse could bear
        assert torch.autograd.gradcheck(
            lambda x: of_examples(loss, task)(x, targets), outputs.requires_grad_()
        )


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_row_without_a_target_costs_nothing_and_moves_nothing(task: Task) -> None:
    outputs, targets = case(task)
    targets[0, 1:] = torch.nan
    targets[1] = torch.nan
    outputs.requires_grad_()
    found = of_examples(KL, task)(outputs, targets)
    rows = task.answers(outputs)
    torch.testing.assert_close(found[0], KL(rows[:1], targets[0, :1])[0])
    assert float(found[1].detach()) == 0
    (gradient,) = torch.autograd.grad(found.sum(), outputs)
    assert gradient.isfinite().all()
    assert (gradient[1] == 0).all()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_objectives_of_every_form_are_of_examples_too(task: Task) -> None:
    outputs, targets = case(task)
    expected = of_examples(KL, task)(outputs, targets)

    def whole(seen: Outputs, wanted: Tensor, anchors: object) -> Tensor:
        assert seen.of("start").logits.shape == seen.logits.shape
        return KL(seen.logits, wanted)

    both = Outputs(outputs, outputs, others={"start": Outputs(outputs, outputs)})
    for objective in (Objective(whole), Objective(OnLogits(KL)), proximal(0.5, KL)):
        own = of_examples(objective, task)
        assert isinstance(own, Objective)
        torch.testing.assert_close(own.loss(both, targets, {}), expected)
        assert own.correct is objective.correct
