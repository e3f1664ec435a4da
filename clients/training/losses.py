"""Losses: pure functions per example, no hidden reduction. Training takes the mean over a batch.

A distillation loss has the signature `(student_logits [B, C], targets [B, C], temperature) -> [B]`
where `targets` are rows of the simplex that already carry the temperature. A new one is a function
anywhere on the Python path and three YAML lines under `conf/strategy/loss/`.
"""

import torch
from torch import Tensor
from torch.nn import functional

from clients.data.label_losses import cross_entropy

__all__ = ["cross_entropy", "kl", "mse", "reverse_kl"]


def kl(
    student_logits: Tensor, targets: Tensor, temperature: float, scale_by_t2: bool = True
) -> Tensor:
    """KL(targets || softmax(student / T)), in nats; zero, with zero gradient, iff they are equal.

    With `scale_by_t2` the loss is multiplied by T**2, which keeps the size of its gradient
    independent of T. ONE, OKDDip, FFL, FedGKT and DaFKD use it; FedDF, FedAUX and KT-pFL do not.

    Args:
        student_logits: Raw outputs [B, C].
        targets: Soft labels [B, C], rows on the simplex.
        temperature: T > 0.
        scale_by_t2: Multiply by T**2.

    Returns:
        Loss per example [B], >= 0 up to rounding.

    Reference:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.
    """
    log_student = functional.log_softmax(student_logits / temperature, dim=-1)
    divergence = (torch.xlogy(targets, targets) - targets * log_student).sum(-1)
    return divergence * temperature**2 if scale_by_t2 else divergence


def mse(student_outputs: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean squared error of C numbers, for a regression's targets.

    Args:
        student_outputs: Raw outputs [B, C].
        targets: What they are to be [B, C].
        temperature: Not used: numbers have none.

    Returns:
        Loss per example [B], >= 0.
    """
    return (student_outputs - targets).square().mean(-1)


def reverse_kl(student_logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """T**2 KL(softmax(student / T) || targets), in nats; mode-seeking, zero iff they are equal.

    Args:
        student_logits: Raw outputs [B, C].
        targets: Soft labels [B, C]; clamped to at least 1e-12, below float32's resolution of 1.
        temperature: T > 0.

    Returns:
        Loss per example [B], >= 0 up to rounding.
    """
    log_student = functional.log_softmax(student_logits / temperature, dim=-1)
    divergence = (log_student.exp() * (log_student - targets.clamp_min(1e-12).log())).sum(-1)
    return divergence * temperature**2
