"""Running weighted sums over clients, for one pass over answers that are never in one place."""

import torch
from torch import Tensor

from clients.answers import tensor_over
from clients.architectures import Parameters

LEEWAY = 1024.0
"""How far a score may exceed its row's scale before the row is rescaled."""

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
        self.scale = torch.zeros(num_examples)
        self.largest = torch.zeros(num_examples)
        """Largest own_probs of those who answer for the example."""
        self.equal: Tensor | None = None
        """Sums at equal trust [N, C]; valid where `largest` is too small to trust anybody by."""
        self.count = torch.zeros(num_examples)

    def add(self, values: Tensor, divisor: Tensor | float, scores: Tensor, rows: slice) -> None:
        """Add a client's values / divisor [B, C], trusted by its scores [B], to a block of rows."""
        if bool((scores > LEEWAY * self.scale[rows]).any()):
            self._rescale(torch.where(scores > LEEWAY * self.scale[rows], scores, 0), rows)
        weights = scores / or_one(self.scale[rows])
        self.weighted[rows].addcmul_(values, weights[:, None] / divisor)
        self.mass[rows] += weights

    def add_equal(
        self, values: Tensor, divisor: Tensor | float, known: Tensor, below: float, rows: slice
    ) -> None:
        """Add a client's values likewise where nobody so far knows the example.

        Args:
            values: [B, C].
            divisor: [B, 1], or 1.
            known: The client's own_probs [B]; negative where it does not answer.
            below: Of an own_probs that says nothing.
            rows: Which block of rows.
        """
        torch.maximum(self.largest[rows], known, out=self.largest[rows])
        unknown = ((self.largest[rows] < below) & (known >= 0)).float()
        if bool(unknown.any()):
            self.equal = torch.zeros_like(self.weighted) if self.equal is None else self.equal
            self.equal[rows].addcmul_(values, unknown[:, None] / divisor)
            self.count[rows] += unknown

    def merge(self, other: Parameters, below: float | None) -> None:
        """Add the sums of other clients, as `arrays` gives them."""
        part = {name: tensor_over(array) for name, array in other.items()}
        self._rescale(part["scale"], slice(None))
        factor = part["scale"] / or_one(self.scale)
        self.weighted.addcmul_(part["weighted"], factor[:, None])
        self.mass.addcmul_(part["mass"], factor)
        if below is not None:
            unknown = part["largest"] < below
            torch.maximum(self.largest, part["largest"], out=self.largest)
            if self.equal is not None and bool(unknown.any()):
                self.equal[unknown] += part["equal"]
                self.count[unknown] += part["count"]

    def arrays(self, below: float | None) -> Parameters:
        """Return the sums by name; those at equal trust only for the examples that need them."""
        sums = {"weighted": self.weighted, "mass": self.mass, "scale": self.scale}
        if below is not None:
            unknown = self.largest < below
            equal = self.weighted[:0] if self.equal is None else self.equal[unknown]
            sums |= {"largest": self.largest, "equal": equal, "count": self.count[unknown]}
        return {name: tensor.numpy() for name, tensor in sums.items()}

    def _rescale(self, scores: Tensor, rows: slice) -> None:
        """Raise the scale of rows to the power of two below these scores [B] where that is more."""
        before = self.scale[rows]
        normal = torch.where(scores > 0, scores.clamp_min(torch.finfo(torch.float32).tiny), 0)
        after = torch.maximum(before, (normal.view(torch.int32) & EXPONENT).view(torch.float32))
        if bool((before < after).any()):
            factor = before / or_one(after)
            self.weighted[rows] *= factor[:, None]
            self.mass[rows] *= factor
            self.scale[rows] = after


def or_one(values: Tensor) -> Tensor:
    """Return the values, 1 instead of 0."""
    return torch.where(values > 0, values, 1)
