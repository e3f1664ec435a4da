"""Conformance of what is minimised: losses of a student, rules of groups that learn together."""

from typing import Any

import torch
from torch import Tensor

from clients.mutual.terms import Shared
from clients.points import Check
from clients.training.losses import kl
from strategies.conformance.checks import shape_fault, unlike
from strategies.conformance.made_up import C, N, answers

# --- losses of a student ---


def _pair(classes: int = C) -> tuple[Tensor, Tensor]:
    made = answers(2, N, classes).logits.double().clamp(-8, 8)
    return made[0], made[1].softmax(-1)


def _by_example(loss: Any) -> str | None:
    """Gives the loss of each example [B], which goes with it."""
    logits, targets = _pair()
    values = loss(logits, targets, temperature=2.0)
    if fault := shape_fault(values, (N,)):
        return fault
    order = torch.arange(N).flip(0)
    if unlike(loss(logits[order], targets[order], temperature=2.0), values[order]):
        return "an example's loss depends on its place in the batch, or on the others"
    return None


def _least_at_equality(loss: Any) -> str | None:
    """Is least, with no gradient, where the student answers its targets."""
    logits, targets = _pair()
    if loss(logits, logits, temperature=1.0).abs().max() < 1e-12:  # of numbers
        return None
    at = (targets.log() * 2.0).requires_grad_()
    values = loss(at, targets, temperature=2.0)
    (gradient,) = torch.autograd.grad(values.sum(), at)
    if float(gradient.abs().max()) > 1e-6:
        return f"its gradient is {float(gradient.abs().max()):.3g} there"
    if (loss(logits, targets, temperature=2.0) <= values.detach()).any():
        return "elsewhere it is smaller"
    return None


def _over_classes(loss: Any) -> str | None:
    """Is summed, not averaged, over the classes."""
    for classes in (C, 2 * C):
        logits, targets = _pair(classes)
        found, whole = loss(logits, targets, temperature=1.0), kl(logits, targets, 1.0)
        if unlike(found * classes, whole):
            return None
    return "it is KL divided by the number of classes: sum over them"


def _gradient(loss: Any) -> str | None:
    """Has the gradient that finite differences have."""
    logits, targets = (each[:4].clone() for each in _pair())
    done = torch.autograd.gradcheck(
        lambda z: loss(z, targets, temperature=2.0), logits.requires_grad_(), raise_exception=False
    )
    return None if done else "it has another: is something detached, or rounded, on the way?"


def _bears_confidence(loss: Any) -> str | None:
    """Is finite for a student that is sure, and wrong."""
    logits = torch.tensor([[300.0, -300.0, 0.0]], requires_grad=True)
    value = loss(logits, torch.tensor([[0.0, 1.0, 0.0]]), temperature=1.0)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    finite = bool(value.isfinite().all() and gradient.isfinite().all())
    return None if finite else "loss or gradient is not"


LOSS: tuple[Check, ...] = (
    _by_example, _least_at_equality, _over_classes, _gradient, _bears_confidence,
)  # fmt: skip


# --- rules of groups ---


def _shared() -> tuple[Shared, Tensor]:
    rng = torch.Generator().manual_seed(0)
    said = [2 * torch.randn(6, C, generator=rng) for _ in range(3)]
    stale = [torch.randn(6, C, generator=rng) for _ in range(3)]
    return Shared([each.requires_grad_() for each in said], (), stale), torch.randn(
        6, C, generator=rng
    ).softmax(-1)


def _teaches_each(rule: Any) -> str | None:
    """Gives each peer a finite loss, and a gradient of its own."""
    shared, targets = _shared()
    losses = rule(shared, targets, 1, None).peers
    if len(losses) != 3:
        return f"gives {len(losses)} losses to 3 peers"
    for k, loss in enumerate(losses):
        if loss.shape != () or not bool(loss.isfinite()):
            return f"gives peer {k} {loss}"
        (own,) = torch.autograd.grad(loss, shared.logits[k], retain_graph=True, allow_unused=True)
        if own is None or not own.abs().sum() > 0:
            return f"peer {k} learns nothing"
    return None


def _detaches(rule: Any) -> str | None:
    """Gives a peer that is only a target no gradient."""
    shared, targets = _shared()
    for k, loss in enumerate(rule(shared, targets, 1, None).peers):
        found = torch.autograd.grad(loss, [*shared.logits], retain_graph=True, allow_unused=True)
        for other, gradient in enumerate(found):
            if other != k and gradient is not None and gradient.any():
                return f"peer {k}'s loss moves peer {other}: detach what is imitated"
    return None


RULE: tuple[Check, ...] = (_teaches_each, _detaches)
