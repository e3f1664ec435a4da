"""What peers said of a batch, what it costs, and the terms that rules are made of."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from clients.training.losses import kl


@dataclass(frozen=True, eq=False)
class Shared:
    """What K peers said of one batch.

    Attributes:
        logits: Of each peer [B, C].
        features: Of each peer [B, D_k, H, W], pooled to one size; empty if there is no head.
        stale: Logits of each peer, of the last refresh [B, C]; empty if there is none.
    """

    logits: Sequence[Tensor]
    features: Sequence[Tensor] = ()
    stale: Sequence[Tensor] = ()


@dataclass(frozen=True, eq=False)
class Terms:
    """What a batch costs.

    Attributes:
        peers: Loss of each peer, a scalar.
        joint: What else is to be made small, by the head and whoever it leans on; a scalar.
        fused: Logits of the head [B, C], if it is a classifier.
    """

    peers: Sequence[Tensor]
    joint: Tensor | None = None
    fused: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """The sum of all."""
        own = torch.stack(list(self.peers)).sum()
        return own if self.joint is None else own + self.joint


Rule = Callable[..., Terms]
"""(shared, targets [B, C], epoch from 0, head or None) -> terms."""


def supervised(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over B of the cross-entropy with soft labels [B, C], in nats; rows of zeros cost 0."""
    return functional.cross_entropy(logits, targets)


def imitation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over the batch of T**2 KL(softmax(teacher / T) || softmax(logits / T)), in nats.

    Logits are [B, C]. Per example: not divided by the classes. The teacher gets no gradient.
    """
    return kl(logits, (teacher.detach() / temperature).softmax(-1), temperature).mean()


def ramp(epoch: int, ramp_epochs: int) -> float:
    """How strongly peers imitate: exp(-5 (1 - min(e, E) / E)**2), 1 from epoch E on.

    Args:
        epoch: e, from 0.
        ramp_epochs: E >= 0; 0 = always 1.

    Returns:
        In [0.0067, 1].

    Reference: the code of ONE and of FFL, with E = 80; Laine and Aila 2017.
    """
    if ramp_epochs == 0:
        return 1.0
    return math.exp(-5.0 * (1.0 - min(epoch, ramp_epochs) / ramp_epochs) ** 2)
