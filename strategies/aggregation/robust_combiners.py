"""Robust combiners: means of probabilities that a few teachers cannot move far."""

from typing import Annotated

import torch
from torch import Tensor

from strategies.aggregation.combiners import softened


def spectral_filter(
    logits: Tensor,
    weights: Tensor,
    temperature: float,
    *,
    share: Annotated[float, "in [0, 0.5)"] = 0.2,
    most_variance: Annotated[float, ">= 0"] = 0.05,
) -> Tensor:
    """Mean of probabilities without the teachers that are farthest out, example by example.

    While the largest eigenvalue of the covariance of the teachers' probabilities is above a bound,
    the teacher whose distance to the mean along its eigenvector is largest is left out; of equal
    ones that of the least id. As Cronus is commonly recalled, with numbers of ours.

    Args:
        logits: Answers [K, N, C].
        weights: Trust [K, N]; who has none is not there.
        temperature: T > 0.
        share: Of the teachers of an example, in [0, 1/2): most that are left out, rounded down.
        most_variance: The bound, >= 0: of rows of the simplex an eigenvalue is 1/2 at most.

    Returns:
        Targets [N, C], on the simplex; zero where nobody covers the example.

    Raises:
        ValueError: A number is out of range.

    Reference: Chang et al., "Cronus: Robust and heterogeneous collaborative learning with black-box
    knowledge transfer", 2019 (arXiv:1912.11279); the filter is of Diakonikolas et al., "Being
    robust (in high dimensions) can be practical", ICML 2017.
    """
    if not 0 <= share < 0.5 or not most_variance >= 0:
        raise ValueError(
            f"strategy.combiner.share={share}, most_variance={most_variance}: expected in "
            "[0, 0.5), >= 0"
        )
    probs, kept = softened(logits, temperature).double(), weights.double()
    left_out = (share * (weights > 0).sum(0) + 1e-9).floor()
    for turn in range(int(left_out.max()) if left_out.numel() else 0):
        trust = kept / kept.sum(0).clamp_min(1e-12)
        gaps = probs - (trust[..., None] * probs).sum(0)
        covariance = torch.einsum("knc,knd->ncd", trust[..., None] * gaps, gaps)
        values, vectors = torch.linalg.eigh(covariance)
        along = (gaps * vectors[..., -1]).sum(-1).abs().round(decimals=9)  # equal ones stay so
        worst = along.where(kept > 0, -1.0).argmax(0)
        drops = (turn < left_out) & (values[:, -1] > most_variance)
        kept[worst[drops], drops.nonzero()[:, 0]] = 0
    trust = kept / kept.sum(0).clamp_min(1e-12)
    return (trust[..., None] * probs).sum(0).to(logits.dtype)
