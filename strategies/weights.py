"""From scores to weights. Ours, so that no rule can forget it."""

import torch
from torch import Tensor


def normalise(scores: Tensor, mask: Tensor, cap: float = 1.0) -> Tensor:
    """Turn scores into weights that sum to one over the teachers of each example.

    Args:
        scores: Raw trust [K, N], finite, >= 0.
        mask: Who answers for what [K, N], bool; the others get weight 0.
        cap: Largest weight of one teacher on one example, in (0, 1]. What is cut off is shared
            among the others in proportion to theirs. Where fewer than 1 / cap teachers cover an
            example, they share it evenly.

    Returns:
        Weights [K, N] in the scores' dtype. A column sums to 1, or to 0 where nobody has a
        positive score: such an example is not covered.

    Raises:
        ValueError: Scores are negative, not finite or of another shape than the mask, or the cap
            is out of range.
    """
    if scores.shape != mask.shape:
        raise ValueError(f"scores {tuple(scores.shape)}: expected {tuple(mask.shape)}, [K, N]")
    if not (torch.isfinite(scores) & (scores >= 0)).all():
        raise ValueError("scores must be finite and >= 0")
    if not 0 < cap <= 1:
        raise ValueError(f"cap={cap}: expected in (0, 1]")
    trusted = torch.where(mask, scores, torch.zeros_like(scores))
    # Divided by the largest first: a sum of K scores near the dtype's limit must not overflow.
    trusted = trusted / trusted.amax(0).clamp_min(torch.finfo(scores.dtype).tiny)
    weights = trusted / trusted.sum(0).clamp_min(torch.finfo(scores.dtype).tiny)
    return weights if cap == 1 else _capped(weights, cap)


def _capped(weights: Tensor, cap: float) -> Tensor:
    """Clip at the cap and share the excess among those below it, until nobody is above."""
    tiny = torch.finfo(weights.dtype).tiny
    # Fewer than 1 / cap teachers cannot all stay below the cap: the best they can do is to be even.
    limit = (1 / (weights > 0).sum(0).clamp_min(1)).to(weights.dtype).clamp_min(cap)
    full = torch.zeros_like(weights, dtype=torch.bool)
    for _ in range(len(weights)):  # each pass brings at least one more teacher to the cap
        above = (weights > limit) & ~full
        if not above.any():
            break
        full |= above
        below = torch.where(full, torch.zeros_like(weights), weights)
        room = 1 - limit * full.sum(0)
        weights = torch.where(full, limit, below * (room / below.sum(0).clamp_min(tiny)))
    return weights
