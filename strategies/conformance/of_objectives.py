"""Conformance of objectives: what clients minimise."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clients.data import normalised
from clients.execution.isolation import keeps_nothing
from clients.execution.objective_policy import objective_fault
from clients.execution.stack import Way
from clients.models.factory import build
from clients.points import Check
from clients.training.objective import START, Objective, as_objective
from clients.training.single_gradients import NetworkGradients
from strategies.conformance.checks import shape_fault, unlike
from strategies.conformance.made_up import PRIVATE, SMALL

LABELS = torch.tensor([0, 3, 1, 2, 1])


def _networks(objective: Objective) -> dict[str, Any]:
    """Make up the networks that an objective compares with; nobody can guess what else it wants."""
    if others := set(objective.anchors) - set(objective.networks):
        raise ValueError(f"compares with {sorted(others)}, which only its method has: not tried")
    names = [name for name in objective.networks if name != START]
    return {name: dict(_small(7 + k).state_dict()) for k, name in enumerate(names)}


def _small(seed: int) -> nn.Module:
    return build(SMALL, PRIVATE.task, np.random.default_rng(seed)).double()


def _moved(objective: Objective) -> tuple[nn.Module, NetworkGradients]:
    """Make a network that has left its start, and what gives its gradients."""
    model = _small(0)
    gradients = NetworkGradients(model, objective, _networks(objective), None)
    model.load_state_dict(_small(1).state_dict())
    return model, gradients


def _inputs() -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(normalised(PRIVATE, np.arange(5)))).double()


def _costs(objective: Any) -> str | None:
    """Gives a finite loss of each example [B], the same again, and changes nothing."""
    objective, inputs, labels = as_objective(objective), _inputs(), LABELS.clone()
    _, gradients = _moved(objective)
    with gradients.taps, keeps_nothing(**objective.plugins):
        values, first = gradients(inputs, labels, torch.arange(5))
        again, second = gradients(inputs, labels, torch.arange(5))
    if fault := shape_fault(values, (5,)):
        return fault
    if unlike(values, again, 0.0):
        return "a second call gives others: does it draw, or keep something?"
    if unlike(inputs, _inputs(), 0.0) or unlike(labels, LABELS, 0.0):
        return "changes the inputs or the labels"
    pairs = zip(first, second, strict=True)
    if any((a is None) != (b is None) or (a is not None and unlike(a, b, 0.0)) for a, b in pairs):
        return "a second call gives other gradients"
    return None


def _bears_sure_networks(objective: Any) -> str | None:
    """Is finite, with its gradient, where the network is sure, and wrong."""
    objective = as_objective(objective)
    model, gradients = _moved(objective)
    with torch.no_grad():
        for parameter in [*model.parameters()][-2:]:
            parameter.mul_(1e4)
    with gradients.taps:
        values, found = gradients(_inputs(), LABELS, torch.arange(5))
    finite = all(bool(each.isfinite().all()) for each in (values, *found) if each is not None)
    return None if finite else "loss or gradient is not"


def _goes_down(objective: Any) -> str | None:
    """Has the gradient of its losses' mean and its penalty, as finite differences have it."""
    objective = as_objective(objective)
    if objective.correct is not None:  # what it corrects to need be no gradient
        return None
    _, gradients = _moved(objective)
    rows, step = torch.arange(5), 1e-6
    rng = torch.Generator().manual_seed(0)
    parameters = list(gradients.named.values())
    way = [torch.randn(p.shape, generator=rng, dtype=p.dtype) for p in parameters]

    def total(sign: float) -> float:
        with torch.no_grad():
            for p, v in zip(parameters, way, strict=True):
                p.add_(v, alpha=sign * step)
        value = gradients(_inputs(), LABELS, rows)[0].mean()
        if objective.penalty is not None:
            value = value + objective.penalty(gradients.named, gradients.anchors).detach()
        with torch.no_grad():
            for p, v in zip(parameters, way, strict=True):
                p.sub_(v, alpha=sign * step)
        return float(value)

    with gradients.taps:
        found = gradients(_inputs(), LABELS, rows)[1]
        slope = (total(1.0) - total(-1.0)) / (2 * step)
    told = sum(float((g * v).sum()) for g, v in zip(found, way, strict=True) if g is not None)
    if abs(told - slope) > 1e-4 * (1 + abs(slope)):
        return f"along a line it says {told:.6g}, and is {slope:.6g}: is something detached?"
    return None


def _together(objective: Any) -> str | None:
    """Is minimised for many clients in one step as for each alone; else they train one by one."""
    objective = as_objective(objective)
    ways: tuple[Way, ...] = ("wide", "vmap")
    what = objective, _networks(objective), LABELS
    faults = [objective_fault(_small(0).float(), PRIVATE.task, way, *what) for way in ways]
    return next((fault for fault in faults if fault), None)


OBJECTIVE: tuple[Check, ...] = (_costs, _bears_sure_networks, _goes_down, _together)
