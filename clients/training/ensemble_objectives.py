"""Objectives of a student that look at each of its teachers, not at their targets alone."""

from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from clients.training.losses import cross_entropy, kl
from clients.training.objective import Anchors, Objective, Outputs


def consensus_and_diversity(diversity_weight: Annotated[float, ">= 0"] = 0.05) -> Objective:
    """Make Fed-ET's objective: the consensus as a hard label, and those who say another class.

    CE(student, y) + weight KL(s || student), y the likeliest class of the targets and s the mean,
    by their weights, of the softmax of the teachers whose likeliest class is another; 0 where there
    are none. As it is commonly recalled, its weight too.

    Args:
        diversity_weight: >= 0.

    Returns:
        The objective, for strategy.loss.

    Raises:
        ValueError: The weight is out of range.

    Reference: Cho et al., "Heterogeneous ensemble knowledge transfer for training large models in
    federated learning", IJCAI 2022 (arXiv:2204.12703).
    """
    if not diversity_weight >= 0:
        raise ValueError(f"strategy.loss.diversity_weight={diversity_weight}: expected >= 0")
    loss = partial(_consensus_and_diversity, diversity_weight=diversity_weight)
    return Objective(loss, anchors=("logits", "weights"))


def _consensus_and_diversity(
    outputs: Outputs,
    targets: Tensor,
    anchors: Anchors,
    *,
    temperature: float,
    diversity_weight: float,
) -> Tensor:
    logits = anchors["logits"][:, outputs.rows].flatten(1, -2)  # [K, B, C], of sites too
    weights = anchors["weights"][:, outputs.rows].flatten(1)
    labels = targets.argmax(-1)
    others = weights * (logits.argmax(-1) != labels)
    total = others.sum(0)
    probs = (logits / temperature).softmax(-1)
    mean = (others[..., None] * probs).sum(0) / total.clamp_min(1e-12)[:, None]
    uniform = torch.full_like(mean, 1 / mean.shape[-1])
    diverse = kl(outputs.logits, torch.where(total[:, None] > 0, mean, uniform), temperature)
    apart = torch.where(total > 0, diverse, 0)
    return cross_entropy(outputs.logits, labels) + diversity_weight * apart
