"""Calibration: whether a network is right as often as it is sure."""

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15
"""Of equal width on (0, 1], as in Guo et al. 2017."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability curve of each of K networks.

    Attributes:
        counts: How many examples are in each bin of confidence [K, bins].
        confidence: Their mean confidence [K, bins], 0 where there is none.
        accuracy: The share of them that is right [K, bins], 0 where there is none.
    """

    counts: Tensor
    confidence: Tensor
    accuracy: Tensor


def reliability(
    confidence: Tensor, correct: Tensor, answered: Tensor | None = None, bins: int = BINS
) -> Reliability:
    """Put answers into bins ((b - 1) / bins, b / bins] of confidence.

    Args:
        confidence: Probability of the most likely class [K, N] in [0, 1].
        correct: Whether that class is right [K, N] bool.
        answered: Which of them are answers [K, N] bool; None = all.
        bins: How many, >= 1.

    Returns:
        The curve of each network.

    Reference:
        Guo et al., "On Calibration of Modern Neural Networks", 2017, sec. 2.
    """
    sure = confidence.double()
    bin_of = (sure * bins).ceil().long().sub(1).clamp(0, bins - 1)
    empty = torch.zeros(len(sure), bins, dtype=torch.float64)
    there = torch.ones_like(sure) if answered is None else answered.double()
    counts = empty.scatter_add(1, bin_of, there)
    some = counts.clamp_min(1)
    return Reliability(
        counts,
        empty.scatter_add(1, bin_of, there * sure) / some,
        empty.scatter_add(1, bin_of, there * correct.double()) / some,
    )


def expected_calibration_error(curve: Reliability) -> Tensor:
    """sum_b |B_b| / n * |accuracy(B_b) - confidence(B_b)| of each network.

    Args:
        curve: Of K networks.

    Returns:
        [K] in [0, 1]; 0 iff every bin is right as often as it is sure, NaN without an example.

    Reference:
        Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian
        Binning", 2015; Guo et al. 2017, eq. 3.
    """
    share = curve.counts / curve.counts.sum(1, keepdim=True)
    return (share * (curve.accuracy - curve.confidence).abs()).sum(1)
