"""The contract of every objective found in conf/ and in STILLHOUSE_RULES: design.md, section 4.

An objective that compares with more than networks is tried where somebody knows what it gets: here
only that the anchor is named where it is missing.
"""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from clients.data import classification
from clients.execution.objective_policy import objective_fault
from clients.models import mlp
from clients.training.objective import START, Objective, Outputs, with_temperature
from clients.training.single_gradients import NetworkGradients
from tests.places import CONF
from tests.plugins import OBJECTIVES, STUDENTS

SHAPE, CLASSES, B = (1, 3, 3), 4, 5
ALL: dict[str, tuple[Any, bool]] = {
    **{name: (each, False) for name, each in OBJECTIVES.items()},
    **{name: (with_temperature(each, 2.0), True) for name, each in STUDENTS.items()},
}
objectives = pytest.mark.parametrize(("objective", "soft"), ALL.values(), ids=ALL)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return mlp(SHAPE, CLASSES, hidden=(6,)).double()


def wanted(soft: bool) -> Tensor:
    rng = torch.Generator().manual_seed(1)
    if soft:
        return torch.randn(B, CLASSES, generator=rng, dtype=torch.float64).softmax(-1)
    return torch.randint(CLASSES, (B,), generator=rng)


def known(objective: Objective) -> dict[str, Any]:
    """Make up the networks that it compares with; what else it wants, nobody can guess."""
    if objective.anchors and not set(objective.anchors) <= set(objective.networks):
        pytest.skip(f"compares with {objective.anchors}: of shapes that only its method knows")
    others = [name for name in objective.networks if name != START]
    return {name: dict(network(7 + k).state_dict()) for k, name in enumerate(others)}


def moved(objective: Objective) -> tuple[nn.Module, NetworkGradients]:
    """A network that has left its start."""
    model = network(0)
    gradients = NetworkGradients(model, objective, known(objective), None)
    model.load_state_dict(network(1).state_dict())
    return model, gradients


def images(seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(B, *SHAPE, generator=rng, dtype=torch.float64)


def test_how_many_objectives_were_found() -> None:
    assert {"proximal", "not_true"} <= OBJECTIVES.keys()
    assert len([*(CONF / "clients" / "objective").glob("*.yaml")]) == 3


@objectives
def test_losses_are_per_example_pure_and_finite(objective: Objective, soft: bool) -> None:
    _, gradients = moved(objective)
    inputs, targets = images(), wanted(soft)
    kept = inputs.clone(), targets.clone()
    with gradients.taps:
        values, first = gradients(inputs, targets, torch.arange(B))
        again, second = gradients(inputs, targets, torch.arange(B))
    assert values.shape == (B,)
    assert torch.equal(values, again)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True) if a is not None)
    assert torch.equal(inputs, kept[0])
    assert torch.equal(targets, kept[1])
    assert all(bool(g.isfinite().all()) for g in first if g is not None)


@objectives
def test_losses_of_confident_networks_are_finite(objective: Objective, soft: bool) -> None:
    rng = torch.Generator().manual_seed(3)
    logits = (300 * torch.randn(B, CLASSES, generator=rng)).requires_grad_()
    sure = 300 * torch.randn(B, CLASSES, generator=rng)
    features = torch.randn(B, 6, generator=rng)
    taps = dict.fromkeys(objective.taps, features)
    others = {name: Outputs(sure, images().float(), taps) for name in objective.networks}
    outputs = Outputs(logits, images().float(), taps, others)
    start = {START: dict(network(0).float().state_dict()), **known(objective)}
    values = objective.loss(outputs, wanted(soft), start)
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert bool(values.isfinite().all())
    assert bool(gradient.isfinite().all())


@objectives
def test_gradients_against_finite_differences(objective: Objective, soft: bool) -> None:
    """Of loss and penalty; a correction need be no gradient of anything."""
    model, gradients = moved(objective)
    inputs, targets = images(), wanted(soft)

    def total(*parameters: Tensor) -> Tensor:
        named = dict(zip(gradients.named, parameters, strict=True))
        run = partial(functional_call, model, named)
        outputs = gradients._outputs(run, inputs, torch.arange(B), others)
        mean = objective.loss(outputs, targets, anchors).mean()
        return mean if objective.penalty is None else mean + objective.penalty(named, anchors)

    anchors = gradients.anchors
    with gradients.taps:
        others = gradients._others(inputs, torch.arange(B))
        leaves = [p.detach().clone().requires_grad_() for p in gradients.named.values()]
        assert torch.autograd.gradcheck(total, leaves)


@objectives
@pytest.mark.parametrize("way", ["wide", "vmap"])
def test_it_is_minimised_together_or_says_why_not(
    objective: Objective, soft: bool, way: Any
) -> None:
    what = objective, known(objective), wanted(soft)
    fault = objective_fault(network(0), classification(SHAPE, CLASSES), way, *what)
    if any(objective is OBJECTIVES[name] for name in ("proximal", "not_true")):
        assert fault is None
    else:
        assert fault is None or fault.startswith("its objective ")
