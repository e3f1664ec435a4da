"""Targets of a student: which inputs they cover, by input, and what keeps them from being any."""

import torch
from torch import Tensor

TOLERANCE = 1e-3
"""How far soft labels may be off the simplex: float32 sums over 1,000 classes are off by 1e-4."""


def covered_inputs(covered: Tensor, sites: int) -> Tensor:
    """Tell on which inputs [N/S] somebody is trusted on a row, of rows that are covered [N]."""
    return covered if sites == 1 else covered.view(-1, sites).any(1)


def targets_by_input(targets: Tensor, covered: Tensor, sites: int) -> Tensor:
    """Sort targets by input, of the inputs that are covered.

    Args:
        targets: Of N rows of answers [N, C].
        covered: Which of them somebody is trusted on [N].
        sites: S, rows of each input.

    Returns:
        [n, C] with one row each, [n, S, C] with several, in which a row that nobody covers is NaN.
    """
    if sites == 1:
        return targets[covered]
    known = torch.where(covered[:, None], targets, torch.nan)
    return torch.unflatten(known, 0, (-1, sites))[covered_inputs(covered, sites)]


def _misshapen(targets: Tensor, covered: Tensor, shape: tuple[int, ...]) -> str | None:
    if not isinstance(targets, Tensor):
        return f"gave {type(targets).__name__}, expected a tensor of targets {shape}"
    if targets.device != covered.device:
        return f"gave targets on {targets.device}, expected {covered.device}"
    if tuple(targets.shape) != shape:
        return f"gave targets of shape {tuple(targets.shape)}, expected {shape}"
    return None


def no_numbers(targets: Tensor, covered: Tensor, shape: tuple[int, ...]) -> str | None:
    """Say why targets [N, M] are none of a regression, where anybody is trusted: covered [N]."""
    if reason := _misshapen(targets, covered, shape):
        return reason
    return None if targets[covered].isfinite().all() else "gave targets that are not finite"


def off_simplex(targets: Tensor, covered: Tensor, shape: tuple[int, ...]) -> str | None:
    """Say why targets [N, C] are no soft labels, where anybody is trusted: covered [N]."""
    if reason := _misshapen(targets, covered, shape):
        return reason
    there = targets[covered]
    if not there.numel():
        return None
    if not float(there.min()) >= -TOLERANCE:  # NaN is not either
        return f"gave {float(there.min()):.4g} as a probability, expected rows on the simplex"
    sums = there.sum(-1)
    if not float((sums - 1).abs().max()) <= TOLERANCE:
        worst = float(sums[(sums - 1).abs().argmax()])
        return f"gave targets of which a row sums to {worst:.4g}, expected 1"
    return None
