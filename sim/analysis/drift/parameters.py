"""Drift in parameter space, for clients of one architecture.

Every measure but the matrix needs three numbers per client and one more, which add up over layers:
so a client's parameters are looked at one layer at a time, and the cost is linear in the cohort.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Moments:
    """Inner products of the updates Delta_k = w_k - w of K clients.

    Attributes:
        squared: ||Delta_k||^2 [K].
        with_mean: <Delta_k, Delta> [K], Delta the mean over K.
        squared_mean: ||Delta||^2, a scalar.
    """

    squared: Tensor
    with_mean: Tensor
    squared_mean: Tensor


def moments(updates: Tensor) -> Moments:
    """Take the inner products of updates [K, D] of one layer, or of all of a network."""
    updates = updates.double()
    mean = updates.mean(0)
    return Moments(updates.square().sum(1), updates @ mean, mean @ mean)


def total(layers: Sequence[Moments]) -> Moments:
    """Add the moments of layers, at least one, up to those of the network."""
    return Moments(
        torch.stack([layer.squared for layer in layers]).sum(0),
        torch.stack([layer.with_mean for layer in layers]).sum(0),
        torch.stack([layer.squared_mean for layer in layers]).sum(0),
    )


def cosine_to_mean(of: Moments) -> Tensor:
    """<Delta_k, Delta> / (||Delta_k|| ||Delta||).

    Args:
        of: Moments of K updates.

    Returns:
        [K] in [-1, 1]; 1 iff a client moved as all did together; NaN where nothing moved.

    Reference:
        Karimireddy et al., "SCAFFOLD", 2020, sec. 1, whose drift this is the angle of.
    """
    return of.with_mean / (of.squared.sqrt() * of.squared_mean.sqrt())


def gradient_diversity(of: Moments) -> float:
    """sum_k ||Delta_k||^2 / ||sum_k Delta_k||^2.

    Args:
        of: Moments of K updates, taken for gradients.

    Returns:
        From 1 / K, all updates alike, without bound; 1 where they are orthogonal; NaN where
        nothing moved.

    Reference:
        Yin et al., "Gradient Diversity: a Key Ingredient for Scalable Distributed Learning", 2018,
        def. 1.
    """
    return float(of.squared.sum() / (len(of.squared) ** 2 * of.squared_mean))


def consensus_distance(of: Moments) -> float:
    """1 / K sum_k ||w_k - mean w||^2.

    Args:
        of: Moments of K updates.

    Returns:
        >= 0; 0 iff all clients have the same parameters.

    Reference:
        Kong et al., "Consensus Control for Decentralized Deep Learning", 2021, sec. 3.
    """
    return max(0.0, float(of.squared.mean() - of.squared_mean))


def cosine_matrix(gram: Tensor) -> Tensor:
    """Cosine of each two updates.

    Args:
        gram: Their inner products [K, K], which add up over layers.

    Returns:
        [K, K] in [-1, 1], symmetric; NaN where an update is 0.
    """
    norms = gram.diagonal().sqrt()
    return gram / (norms[:, None] * norms)
