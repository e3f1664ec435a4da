"""Conformance of what is minimised: losses of a student, rules of groups that learn together."""

from typing import Any

import torch
from torch import Tensor

from clients.mutual.terms import Shared
from clients.points import Check
from clients.training.losses import kl
from strategies.conformance.checks import refuses, shape_fault, unlike
from strategies.conformance.made_up import C, N, answers

# --- losses of a student ---


def _pair(classes: int = C) -> tuple[Tensor, Tensor]:
    made = answers(2, N, classes).logits.double().clamp(-8, 8)
    return made[0], made[1].softmax(-1)


def _of_numbers(loss: Any, logits: Tensor) -> bool:
    """Tell whether it compares numbers of a regression: it is 0 where they are equal."""
    return bool(loss(logits, logits, temperature=1.0).abs().max() < 1e-12)


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
    if _of_numbers(loss, logits):
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
    logits, targets = _pair()
    if _of_numbers(loss, logits):
        return None
    nobody = torch.full((N, 1), -200.0, dtype=logits.dtype)  # a class that neither side thinks of
    more = torch.cat([logits, nobody], -1), torch.cat([targets, nobody.exp()], -1)
    found, wider = loss(logits, targets, temperature=1.0), loss(*more, temperature=1.0)
    if not unlike(found * C, kl(logits, targets, 1.0)):
        return "it is KL divided by the number of classes: sum over them"
    if unlike(found, wider) and not unlike(found * C / (C + 1), wider):
        return f"one more class, which nobody thinks of, makes {C}/{C + 1} of it: sum over classes"
    return None


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


def _shared(peers: int = 3, asked_before: bool = True) -> tuple[Shared, Tensor]:
    rng = torch.Generator().manual_seed(0)
    said = [2 * torch.randn(6, C, generator=rng) for _ in range(peers)]
    stale = [torch.randn(6, C, generator=rng) for _ in range(peers)] if asked_before else ()
    return Shared([each.requires_grad_() for each in said], (), stale), torch.randn(
        6, C, generator=rng
    ).softmax(-1)


def _teaches_each(rule: Any) -> str | None:
    """Gives each peer a finite loss, and a gradient of its own."""
    return _lesson_fault(rule, 3, 1, True)


def _lesson_fault(rule: Any, peers: int, epoch: int, asked_before: bool) -> str | None:
    """Say what is odd in losses of so many peers; before the first epoch is over they may rest."""
    shared, targets = _shared(peers, asked_before)
    losses = rule(shared, targets, epoch, None).peers
    where = f"of {peers} in epoch {epoch}"
    if len(losses) != peers:
        return f"gives {len(losses)} losses to {peers} peers"
    for k, loss in enumerate(losses):
        if not _is_scalar(loss):
            return f"gives peer {k} {where} {loss}"
        if epoch == 0:
            continue
        (own,) = torch.autograd.grad(loss, shared.logits[k], retain_graph=True, allow_unused=True)
        if own is None or not own.abs().sum() > 0:
            return f"peer {k} {where} learns nothing"
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


def _any_group(rule: Any) -> str | None:
    """Teaches 2 peers and 4, and in epoch 0 without stale answers, or raises a ValueError."""
    for what in ((2, 1, True), (4, 1, True), (3, 0, False), (2, 0, False)):
        try:
            if fault := _lesson_fault(rule, *what):
                return fault
        except ValueError as error:
            if not refuses(error):
                raise
    return None


def _joint(rule: Any) -> str | None:
    """Gives as `joint` a finite scalar or None, and as `fused` logits [B, C] or None."""
    shared, targets = _shared()
    terms = rule(shared, targets, 1, None)
    if terms.joint is not None and not _is_scalar(terms.joint):
        return f"`joint` is {str(terms.joint)[:60]}"
    return None if terms.fused is None else shape_fault(terms.fused, (6, C))


def _is_scalar(loss: Any) -> bool:
    return isinstance(loss, Tensor) and loss.shape == () and bool(loss.isfinite())


RULE: tuple[Check, ...] = (_teaches_each, _detaches, _any_group, _joint)
