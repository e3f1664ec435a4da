"""Running weighted sums over clients, for one pass over answers that are never in one place."""

import torch
from torch import Tensor

from clients.messages.codecs import tensor_over
from clients.models.factory import Parameters

LEEWAY = 1024.0
"""How far a score may exceed its row's scale before the row is rescaled."""

TINY = 2.0**-126
"""Least scale: the least power of two that float32 holds in full precision."""

EXPONENT = 0x7F800000
"""Bits of a float32 that hold its exponent; without the others it is a power of two."""


class Sums:
    """Running sums over clients, in float32.

    Weighted sums are kept in units of a power of two per example, `scale`, near the largest score
    so far. Changing it rounds nothing, and neither huge scores nor huge logits overflow.
    """

    def __init__(self, num_examples: int, num_classes: int) -> None:
        """Start at zero, for N examples and C classes."""
        self.weighted = torch.zeros(num_examples, num_classes)
        self.mass = torch.zeros(num_examples)
        self.scale = torch.full((num_examples,), TINY)
        self.largest = torch.zeros(num_examples)
        """Largest own_probs of those who answer for the example."""
        self.equal: Tensor | None = None
        """Sums at equal trust [N, C]; valid where `largest` is too small to trust anybody by."""
        self.count = torch.zeros(num_examples)

    def add(self, values: Tensor, divisor: Tensor | float, scores: Tensor, rows: slice) -> None:
        """Add a client's values / divisor [B, C], trusted by its scores [B], to a block of rows."""
        weights = scores / self.scale[rows]
        if bool(weights.amax() > LEEWAY):
            self._rescale(torch.where(weights > LEEWAY, scores, 0), rows)
            weights = scores / self.scale[rows]
        self.weighted[rows].addcmul_(values, weights[:, None] / divisor)
        self.mass[rows] += weights

    def meet(self, own_probs: Tensor, mask: Tensor, below: float) -> Tensor | None:
        """Note what a client knows.

        Args:
            own_probs: How probably each example is of its own kind [N].
            mask: Which it answers for [N], bool.
            below: Of an own_probs that says nothing.

        Returns:
            1 where nobody so far knows the example and it answers, else 0 [N]; None if all are 0.
        """
        torch.maximum(self.largest, own_probs * mask, out=self.largest)
        unknown = (self.largest < below) & mask
        return unknown.float() if bool(unknown.any()) else None

    def add_equal(
        self, values: Tensor, divisor: Tensor | float, unknown: Tensor, rows: slice
    ) -> None:
        """Add a client's values likewise, untrusted, where `meet` says so [B]."""
        self.equal = torch.zeros_like(self.weighted) if self.equal is None else self.equal
        self.equal[rows].addcmul_(values, unknown[:, None] / divisor)
        self.count[rows] += unknown

    def merge(self, other: Parameters, below: float | None) -> None:
        """Add the sums of other clients, as `arrays` gives them."""
        part = {name: tensor_over(array) for name, array in other.items()}
        self._rescale(part["scale"], slice(None))
        factor = part["scale"] / self.scale
        self.weighted.addcmul_(part["weighted"], factor[:, None])
        self.mass.addcmul_(part["mass"], factor)
        if below is not None:
            unknown = part["largest"] < below
            torch.maximum(self.largest, part["largest"], out=self.largest)
            # Rows that somebody knows by now are added to as well, and never looked at.
            if bool((self.largest < below).any()):
                self.equal = torch.zeros_like(self.weighted) if self.equal is None else self.equal
                self.equal[unknown] += part["equal"]
                self.count[unknown] += part["count"]

    def arrays(self, below: float | None) -> Parameters:
        """Return the sums by name; those at equal trust only for the examples that need them."""
        sums = {"weighted": self.weighted, "mass": self.mass, "scale": self.scale}
        if below is not None:
            unknown = self.largest < below
            sums |= {"largest": self.largest, "count": self.count[unknown]}
            none = self.weighted.new_zeros(int(unknown.sum()), self.weighted.shape[1])
            sums["equal"] = none if self.equal is None else self.equal[unknown]
        return {name: tensor.numpy() for name, tensor in sums.items()}

    def _rescale(self, scores: Tensor, rows: slice) -> None:
        """Raise the scale of rows to the power of two below these scores [B] where that is more."""
        before = self.scale[rows]
        powers = (scores.float().view(torch.int32) & EXPONENT).view(torch.float32)
        after = torch.maximum(before, powers)
        if bool((before < after).any()):
            factor = before / after
            self.weighted[rows] *= factor[:, None]
            self.mass[rows] *= factor
            self.scale[rows] = after
