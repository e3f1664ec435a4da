"""The codec of soft labels in a few bits, on the simplex, entropy-coded: CFD's without deltas."""

import zlib
from dataclasses import dataclass
from math import prod
from typing import Annotated

import numpy as np
import numpy.typing as npt

from clients.messages.codecs import Array, Arrays
from clients.messages.compression import RATIO
from clients.messages.layout import LAYOUT, layout_of, read_layout, shape_of

FLOOR = 1e-6
"""Probability of a class that no level is left for, as logits: a softmax has no 0."""


@dataclass(frozen=True)
class SoftLabels:
    """Probabilities as so many levels of 1 / (2**bits - 1) that sum to 1, then zlib.

    One bit is the likeliest class. Of each row the levels are rounded down, and what is missing to
    1 goes to the largest remainders (Hamilton's method): the nearest such row. Which rounding the
    paper means is not known here, and of its coding of changes from round to round there is none.

    Attributes:
        bits: 1 to 8.
        logits: Whether arrays are logits, of which the softmax is coded, and its logarithm decoded,
            as `strategy.ensemble.answers` are; else probabilities, as targets that are fed back.

    Raises:
        ValueError: The number is out of range.

    Reference: Sattler et al., "CFD: Communication-efficient federated distillation via soft-label
    quantization and delta coding", IEEE TNSE 2022 (arXiv:2012.00632).
    """

    bits: Annotated[int, "in [1, 8]"] = 1
    logits: bool = False

    def __post_init__(self) -> None:
        if self.bits not in range(1, 9):
            raise ValueError(f"codec SoftLabels: bits={self.bits}, expected 1 to 8")

    def encode(self, arrays: Arrays) -> dict[str, Array]:
        """Send one array of bytes, and what they are of; ValueError if numbers are not finite."""
        body, told = b"", []
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise ValueError(f"'{name}' is not finite")
            rows = array.reshape(-1, array.shape[-1])
            levels = self.levels(_softmax(rows) if self.logits else rows)
            body += levels.tobytes() if self.bits > 1 else _likeliest(levels)
            told.append([name, array.shape])
        return {
            LAYOUT: layout_of(told),
            "deflated": np.frombuffer(zlib.compress(body, 9), np.uint8),
        }

    def decode(self, arrays: Arrays) -> dict[str, Array]:
        """Inflate, and cut; ValueError if it is more or less than it says, or no soft labels."""
        shapes = {name: shape_of(shape) for name, shape in read_layout(arrays)}
        deflated, found, start = arrays["deflated"].tobytes(), {}, 0
        sizes = {name: self._bytes(shape) for name, shape in shapes.items()}
        if (size := sum(sizes.values())) > RATIO * len(deflated):
            raise ValueError(f"says that it is of {size} bytes, which {len(deflated)} cannot be")
        whole = zlib.decompressobj().decompress(deflated, size + 1)
        if len(whole) != size:
            raise ValueError(f"is of {len(whole)} bytes, expected {size}")
        for name, shape in shapes.items():
            levels = self._levels(whole[start : start + sizes[name]], shape)
            start += sizes[name]
            probs = (levels / np.float32(self._steps)).astype(np.float32)
            found[name] = np.log(np.maximum(probs, np.float32(FLOOR))) if self.logits else probs
        return found

    def levels(self, probs: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
        """Round rows of the simplex [R, C] to levels [R, C] that sum to 2**bits - 1."""
        exact = probs.astype(np.float64)
        exact *= self._steps / np.maximum(exact.sum(1, keepdims=True), 1e-12)
        levels = np.floor(exact + 1e-9)
        missing = self._steps - levels.sum(1)
        order = np.argsort(-(exact - levels).round(9), axis=1, kind="stable")
        ranks = np.argsort(order, axis=1, kind="stable")
        found: npt.NDArray[np.uint8] = (levels + (ranks < missing[:, None])).astype(np.uint8)
        return found

    @property
    def _steps(self) -> int:
        return (1 << self.bits) - 1

    def _bytes(self, shape: tuple[int, ...]) -> int:
        """Return how many there are before they are deflated; ValueError of what has no rows."""
        if not shape or not shape[-1]:
            raise ValueError(f"soft labels of shape {shape}: expected rows")
        return prod(shape) if self.bits > 1 else prod(shape[:-1]) * _width(shape[-1])

    def _levels(self, body: bytes, shape: tuple[int, ...]) -> Array:
        if self.bits > 1:
            levels = np.frombuffer(body, np.uint8).reshape(shape)
            if (levels.sum(-1, dtype=np.int64) != self._steps).any():
                raise ValueError("a row does not sum to 1")
            return levels
        labels = np.frombuffer(body, f"<u{_width(shape[-1])}").reshape(shape[:-1])
        if labels.size and labels.max() >= shape[-1]:
            raise ValueError(f"a class is {labels.max()}, expected 0..{shape[-1] - 1}")
        levels = np.asarray(labels[..., None] == np.arange(shape[-1]))
        return levels.astype(np.uint8)


def _likeliest(levels: npt.NDArray[np.uint8]) -> bytes:
    labels: npt.NDArray[np.int64] = levels.argmax(1)
    return labels.astype(f"<u{_width(levels.shape[1])}").tobytes()


def _width(num_classes: int) -> int:
    """Return the bytes of a class."""
    return 1 if num_classes <= 256 else 4


def _softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    found: npt.NDArray[np.float64] = powers / powers.sum(1, keepdims=True)
    return found
