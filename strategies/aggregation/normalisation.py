"""From scores to weights. Ours, so that no rule can forget it."""

import math

import torch
from torch import Tensor


def normalise(scores: Tensor, mask: Tensor, cap: float = 1.0) -> Tensor:
    """Turn scores into weights that sum to one over the teachers of each example.

    Args:
        scores: Raw trust [K, N], finite, >= 0; integers are taken as float32.
        mask: Who answers for what [K, N], bool; the others get weight 0.
        cap: Largest weight of one teacher on one example, in (0, 1]. What is cut off is shared
            among the others in proportion to theirs. Where fewer than 1 / cap teachers have a
            positive score, they share the example evenly.

    Returns:
        Weights [K, N]. A column sums to 1, or to 0 where nobody has a
        positive score: such an example is not covered.

    Raises:
        ValueError: Scores are negative, not finite or of another shape than the mask, or the cap
            is out of range.
    """
    if not 0 < cap <= 1:
        raise ValueError(f"cap={cap}: expected in (0, 1]")
    trusted = masked(scores, mask)
    weights = _shared(trusted, torch.ones_like(trusted[0]))
    return weights if cap == 1 else _capped(weights, cap)


def masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Check scores and silence who does not answer.

    Args:
        scores: Raw trust [K, N]; integers are taken as float32.
        mask: Who answers for what [K, N], bool.

    Returns:
        Scores [K, N], 0 where masked.

    Raises:
        ValueError: Scores are negative, not finite or of another shape than the mask.
    """
    _require_shape(scores, mask)
    scores = scores if scores.is_floating_point() else scores.float()
    trusted = torch.where(mask, scores, torch.zeros_like(scores))
    least, largest = torch.aminmax(trusted)  # NaN if there is one
    if not (least >= 0 and largest < math.inf):
        found = float(least if not least >= 0 else largest)
        raise ValueError(f"scores must be finite and >= 0, found {found:g}")
    return trusted


def unless_unknown(scores: Tensor, own_probs: Tensor, mask: Tensor, below: float) -> Tensor:
    """Trust all teachers alike on the examples that none of them knows.

    Args:
        scores: Raw trust [K, N].
        own_probs: How probably each example is of the teacher's own kind [K, N], in [0, 1].
        mask: Who answers for what [K, N], bool.
        below: Where even the largest of a column's own_probs is below this, it is noise.

    Returns:
        Scores [K, N], 1 in the columns that nobody knows.

    Raises:
        ValueError: Scores are of another shape than the mask.
    """
    _require_shape(scores, mask)
    answered = torch.where(mask, own_probs, torch.zeros_like(own_probs))
    return torch.where(answered.amax(0) < below, torch.ones_like(scores), scores)


def _require_shape(scores: Tensor, mask: Tensor) -> None:
    if not isinstance(scores, Tensor):
        raise ValueError(f"returned {type(scores).__name__}, expected a tensor of scores [K, N]")
    if scores.device != mask.device:
        raise ValueError(f"scores are on {scores.device}, expected {mask.device}")
    if scores.shape != mask.shape:
        raise ValueError(f"scores {tuple(scores.shape)}: expected {tuple(mask.shape)}, [K, N]")


def _shared(trusted: Tensor, total: Tensor) -> Tensor:
    """Scale each column of [K, N] to the sum `total` [N]; a column of zeros stays so."""
    # By the largest first: the sum of K scores near the dtype's limit would overflow, and the
    # inverse of a subnormal one too.
    tiny = torch.finfo(trusted.dtype).tiny
    largest = trusted.amax(0)
    ratios = trusted / torch.where(largest > 0, largest, torch.ones_like(largest))
    return ratios * (total / ratios.sum(0).clamp_min(tiny))


def _capped(weights: Tensor, cap: float) -> Tensor:
    """Clip at the cap and share the excess among those below it, until nobody is above."""
    # Fewer than 1 / cap teachers cannot all stay below the cap: the best they can do is to be even.
    limit = (1 / (weights > 0).sum(0).clamp_min(1)).to(weights.dtype).clamp_min(cap)
    full = torch.zeros_like(weights, dtype=torch.bool)
    for _ in range(len(weights)):  # each pass brings at least one more teacher to the cap
        above = (weights > limit) & ~full
        if not above.any():
            break
        full |= above
        below = torch.where(full, torch.zeros_like(weights), weights)
        weights = torch.where(full, limit, _shared(below, 1 - limit * full.sum(0)))
    return weights
