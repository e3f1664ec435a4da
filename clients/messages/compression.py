"""Codecs that are shipped: sparse, quantised, entropy-coded, clipped and noised.

All code the difference to what was received: of parameters x - r, of answers x. All but one take
the arrays as one vector. Each part of what is sent is an array with Flower's header of 128 bytes;
the layout, names and shapes, takes some 30 bytes an array. Arrays of other dtypes than float32 go
as they are.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt

from clients.messages.codecs import Array, Arrays, Precision
from clients.messages.layout import (
    LAYOUT,
    Vector,
    cut,
    difference,
    dtype_of,
    flat,
    layout_of,
    read_layout,
    restored,
    shape_of,
    size_of,
)

Note = Callable[..., None]

RATIO = 1100
"""Bytes that one byte of zlib's can stand for: 1,032 at most."""

NONE: Arrays = {}


@dataclass(frozen=True)
class TopK:
    """The sparse codec: a share of the numbers, those of largest size; 8 bytes each, not 4.

    k = max(1, round(share D)) of D numbers are sent with their places, int32; the others are 0. Of
    equal sizes the first are taken. With `memory` what was left out is kept in the client's state
    and added the next time: v_t = (x_t - r_t) + m_t, m_t+1 = v_t - top_k(v_t).

    Attributes:
        share: Of the numbers, in (0, 1].
        memory: Whether what is left out is remembered; answers have none.

    Raises:
        ValueError: The share is out of range.

    Reference: Stich, Cordonnier, Jaggi, "Sparsified SGD with memory", NeurIPS 2018
    (arXiv:1809.07599), algorithm 1; there of a gradient, here of what a round changes.
    """

    share: Annotated[float, "in (0, 1]"] = 0.1
    memory: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"codec TopK: share={self.share}, expected in (0, 1]")

    def encode(
        self, arrays: Arrays, *, received: Arrays = NONE, state: dict[str, Array] | None = None
    ) -> dict[str, Array]:
        """Send places and values, and what the places are of."""
        vector, parts = flat(arrays, received)
        remembers = self.memory and state is not None
        if remembers and state and state["left"].shape == vector.shape:
            vector = vector + state["left"]
        places = _largest(vector, self._number(len(vector)))
        if remembers and state is not None:
            state["left"] = vector.copy()
            state["left"][places] = 0
        return {**parts, "places": places.astype(np.int32), "values": vector[places]}

    def decode(self, arrays: Arrays, *, received: Arrays = NONE) -> dict[str, Array]:
        """Put the values at their places; ValueError if there are none of such."""
        places, values, size = arrays["places"], arrays["values"], size_of(arrays)
        number = self._number(size)
        if places.shape != (number,) or values.shape != (number,) or places.dtype != np.int32:
            raise ValueError(f"places and values are {places.shape}, expected ({number},)")
        if number and (places.min() < 0 or places.max() >= size):
            raise ValueError(f"a place is beyond {size}")
        vector = np.zeros(size, np.float32)
        vector[places] = values
        return cut(vector, arrays, received, ("places", "values"))

    def _number(self, size: int) -> int:
        return min(size, max(1, round(self.share * size)))


@dataclass(frozen=True)
class QSGD:
    """The codec of a few bits a number, stochastically rounded, so that its mean is the number.

    Of each bucket m = max |v| is sent, float32, and of each number v the level l of 0..s that
    (v / m + 1) s / 2 is rounded to: down to floor(p) with probability 1 - (p - floor(p)), else up.
    Decoded it is m (2 l / s - 1), less than 2 m / s off, and E[decode(encode(v))] = v. With
    s = 2^bits - 2 zero is a level; one bit has s = 1, the sign. Bits are packed: bits / 8 bytes a
    number and 4 a bucket.

    Attributes:
        bits: 1 to 8.
        bucket: Numbers with one m, >= 1.

    Raises:
        ValueError: A number is out of range.

    Reference: QSGD, Alistarh et al., NeurIPS 2017 (arXiv:1610.02132), sec. 3.1 with buckets and
    the largest size in the place of the norm, as in its experiments; without its Elias code.
    """

    bits: Annotated[int, "in [1, 8]"] = 4
    bucket: Annotated[int, ">= 1"] = 512

    def __post_init__(self) -> None:
        if self.bits not in range(1, 9) or self.bucket < 1:
            raise ValueError(
                f"codec QSGD: bits={self.bits}, bucket={self.bucket}: expected 1 to 8, >= 1"
            )

    def encode(
        self, arrays: Arrays, *, rng: np.random.Generator, received: Arrays = NONE
    ) -> dict[str, Array]:
        """Send levels, packed, and the scale of each bucket."""
        vector, parts = flat(arrays, received)
        buckets = np.zeros((-(-len(vector) // self.bucket), self.bucket), np.float32)
        buckets.reshape(-1)[: len(vector)] = vector
        scales = np.abs(buckets).max(1)
        with np.errstate(invalid="ignore"):  # a scale that is not finite tells the receiver
            shares = buckets / np.where(scales > 0, scales, 1).astype(np.float64)[:, None]
        exact = ((np.nan_to_num(shares) + 1) * self._steps / 2).reshape(-1)[: len(vector)]
        levels = np.floor(exact + rng.random(len(vector))).clip(0, self._steps).astype(np.uint8)
        digits = np.unpackbits(levels[:, None], axis=1, count=self.bits, bitorder="little")
        return {**parts, "levels": np.packbits(digits, bitorder="little"), "scales": scales}

    def decode(self, arrays: Arrays, *, received: Arrays = NONE) -> dict[str, Array]:
        """Turn levels into numbers; ValueError if there are not as many as it takes."""
        packed, scales, size = arrays["levels"], arrays["scales"], size_of(arrays)
        wanted = (-(-size * self.bits // 8),), (-(-size // self.bucket),)
        if (packed.shape, scales.shape) != wanted or packed.dtype != np.uint8:
            raise ValueError(f"levels and scales are {packed.shape}, {scales.shape}, not {wanted}")
        digits = np.unpackbits(packed, count=size * self.bits, bitorder="little")
        levels = np.packbits(digits.reshape(size, self.bits), axis=1, bitorder="little")[:, 0]
        if size and levels.max() > self._steps:
            raise ValueError(f"a level is {levels.max()}, expected 0..{self._steps}")
        shares = (2 * levels.astype(np.int16) - self._steps) / np.float32(self._steps)
        numbers = shares * np.repeat(scales, self.bucket)[:size]
        return cut(numbers.astype(np.float32), arrays, received, ("levels", "scales"))

    @property
    def _steps(self) -> int:
        return max(1, (1 << self.bits) - 2)


@dataclass(frozen=True)
class GaussianMechanism:
    """The codec that clips the whole and adds Gaussian noise: the Gaussian mechanism, by client.

    v min(1, clip / |v|_2) + N(0, sigma^2 I), |v|_2 over all numbers. What one client sends changes
    by 2 clip at most whatever its data are, against noise of sigma; which epsilon that is over all
    rounds is for an accountant to say. Notes `noise_multiplier`, sigma / clip. Beside it a reply
    says how many examples there are and the training loss, and buffers, such as batch norm's
    means, go as they are: take networks without. Numbers that it would not reach are refused: of
    other dtypes than float32, in other records, and what a codec before it in a chain has made.

    Attributes:
        clip: Largest norm, > 0.
        sigma: Standard deviation of the noise of each number, >= 0.

    Raises:
        ValueError: A number is out of range.

    Reference: Abadi et al., "Deep learning with differential privacy", CCS 2016
    (arXiv:1607.00133), algorithm 1, of a client's update as in McMahan et al., ICLR 2018
    (arXiv:1710.06963), where the server adds the noise.
    """

    clip: Annotated[float, "> 0"] = 1.0
    sigma: Annotated[float, ">= 0"] = 0.01
    private: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (0 < self.clip < float("inf") and 0 <= self.sigma < float("inf")):
            raise ValueError(
                f"codec GaussianMechanism: clip={self.clip}, sigma={self.sigma}: expected > 0 and "
                ">= 0, finite"
            )

    def encode(
        self,
        arrays: Arrays,
        *,
        rng: np.random.Generator,
        note: Note,
        received: Arrays = NONE,
    ) -> dict[str, Array]:
        """Send arrays of the same names and shapes; ValueError if some would go as they are."""
        for name, array in arrays.items():
            if array.dtype.kind not in "iub" and array.dtype != np.float32:
                raise ValueError(
                    f"array '{name}' is {array.dtype}, and would go neither clipped nor noised: "
                    "expected float32"
                )
        vector, parts = flat(arrays, received)
        norm = float(np.linalg.norm(vector.astype(np.float64)))
        clipped = vector * np.float64(min(1.0, self.clip / norm) if norm > 0 else 1.0)
        noised = clipped + rng.normal(scale=self.sigma, size=vector.shape)
        note(noise_multiplier=self.sigma / self.clip)
        return cut(noised.astype(np.float32), parts, received, ())

    def decode(self, arrays: Arrays) -> Arrays:
        """Take what came for the arrays."""
        return arrays


@dataclass(frozen=True)
class Deflate:
    """The entropy-coded codec: `Precision("uint8")` of each array, and zlib over all of it.

    Fewer than 8 bits a number where some levels are more frequent than others, or repeat: DEFLATE,
    RFC 1951, is LZ77 and a Huffman code. Within half a step of each row, as those 8 bits are.

    Attributes:
        level: Of zlib, 0 to 9: 9 is smallest and slowest.

    Raises:
        ValueError: The level is out of range.
    """

    level: Annotated[int, "in [0, 9]"] = 6

    def __post_init__(self) -> None:
        if self.level not in range(10):
            raise ValueError(f"codec Deflate: level={self.level}, expected 0 to 9")

    def encode(self, arrays: Arrays, *, received: Arrays = NONE) -> dict[str, Array]:
        """Send one array of bytes, and what they are of."""
        parts = EIGHT_BITS.encode(difference(arrays, received))
        body = b"".join(np.ascontiguousarray(part).tobytes() for part in parts.values())
        told = [[name, str(part.dtype), part.shape] for name, part in parts.items()]
        deflated = np.frombuffer(zlib.compress(body, self.level), np.uint8)
        return {LAYOUT: layout_of(told), "deflated": deflated}

    def decode(self, arrays: Arrays, *, received: Arrays = NONE) -> dict[str, Array]:
        """Inflate, and cut; ValueError if it is more or less than it says."""
        body, parts, start = arrays["deflated"].tobytes(), {}, 0
        told = [
            (name, dtype_of(dtype), shape_of(shape)) for name, dtype, shape in read_layout(arrays)
        ]
        size = sum(dtype.itemsize * prod(shape) for _, dtype, shape in told)
        if size > RATIO * len(body):
            raise ValueError(f"says that it is of {size} bytes, which {len(body)} cannot be")
        whole = zlib.decompressobj().decompress(body, size + 1)
        if len(whole) != size:
            raise ValueError(f"is of {len(whole)} bytes, expected {size}")
        for name, dtype, shape in told:
            parts[name] = np.frombuffer(whole, dtype, prod(shape), start).reshape(shape)
            start += parts[name].nbytes
        return restored(EIGHT_BITS.decode(parts), received)


EIGHT_BITS = Precision("uint8")


def _largest(vector: Vector, number: int) -> npt.NDArray[np.int64]:
    """Return the places of the largest sizes, ascending; what is not finite is largest."""
    if not number:
        return np.zeros(0, np.int64)
    sizes = np.where(np.isfinite(vector), np.abs(vector), np.inf)
    least = np.partition(sizes, len(sizes) - number)[len(sizes) - number]
    above = np.flatnonzero(sizes > least)
    equal = np.flatnonzero(sizes == least)[: number - len(above)]
    return np.sort(np.concatenate([above, equal]))
