"""Losses of labels: what a network's outputs cost, per example, and how they are cut into rows.

They are shipped tasks'; a distillation loss is one of `clients.training.losses`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from clients.data.label_checks import UNLABELLED

if TYPE_CHECKING:
    from torch import Tensor

BELOW = 1e4
"""How far below a row's least logit are those of the classes that a head has not: even at a
temperature of 100 their probability is 0 in float32."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with labels, in nats.

    Args:
        logits: raw outputs [B, C].
        labels: class indices [B], int64 in 0..C-1; or soft labels [B, C], rows on the simplex.

    Returns:
        Loss per example [B], >= 0.

    Raises:
        ValueError: the labels are numbers of a regression: of one logit it is always 0.
    """
    from torch.nn import functional

    if logits.shape[1] == 1 and labels.is_floating_point():
        raise ValueError("cross_entropy: labels are numbers, expected classes")
    return functional.cross_entropy(logits, labels, reduction="none")


def cross_entropy_of_labelled(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy [B], 0 of what is `UNLABELLED`: logits [B, C], labels [B] or probs [B, C]."""
    if labels.is_floating_point():
        return cross_entropy(logits, labels)
    return cross_entropy(logits, labels.clamp_min(0)) * (labels != UNLABELLED)


def half_squared_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """Half the squared error, summed over the D numbers [B, D] of an example; [B]."""
    return 0.5 * (outputs - labels).square().flatten(1).sum(1)


def loss_of_sites(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of an example's labelled sites [B]: outputs [B, C, ...], labels [B, ...].

    Not torch's ignore_index: `torch.vmap` would run one client after the other.
    """
    from torch.nn import functional

    known = labels != UNLABELLED
    losses = functional.cross_entropy(outputs, labels.clamp_min(0), reduction="none") * known
    axes = tuple(range(1, losses.dim()))
    total: Tensor = losses.sum(axes) / known.sum(axes).clamp_min(1)
    return total


def loss_of_heads(outputs: Tensor, labels: Tensor, *, rows: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean cross-entropy of an example's labelled heads [B]: labels [B, heads]."""
    import torch

    sites = labels.shape[1]
    return loss_of_sites(torch.unflatten(rows(outputs), 0, (-1, sites)).movedim(2, 1), labels)


# --- rows ---


def classes_last(outputs: Tensor) -> Tensor:
    """[B, C, ...] -> [B*S, C]."""
    return outputs.movedim(1, -1).flatten(0, -2)


def heads_apart(outputs: Tensor, *, sizes: tuple[int, ...]) -> Tensor:
    """[B, sum of sizes] -> [B*heads, largest size]; what a head has not is far below its least."""
    import torch

    largest, apart = max(sizes), []
    for own in torch.split(outputs, [*sizes], dim=1):
        least = own.amin(1, keepdim=True) - BELOW
        apart.append(torch.cat([own, least.expand(-1, largest - own.shape[1])], dim=1))
    return torch.stack(apart, dim=1).flatten(0, 1)
