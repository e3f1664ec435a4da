"""Codecs: how an array of answers travels, as it is, as float16, or in 8 bits with offset and step.

For N inputs and C classes the payload is 4 N C, 2 N C or N C + 8 N bytes, beside Flower's 128 bytes
of header per array. One of a user's own has `encode` and `decode`, and sits on a field
(`clients.messages.field.Field`); clipping and noise are one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.dlpack import from_dlpack

Array = npt.NDArray[Any]
Parts = Mapping[str, Array]
"""What an array is sent as, by the name of the part; "" for one that needs no name."""

Rows = slice | npt.NDArray[np.int64] | EllipsisType

ANSWERS = ("float32", "float16", "uint8")
LARGEST_FLOAT16 = 65504.0
LEVELS = 255
"""Steps between the least and the largest number of a row in 8 bits."""


@runtime_checkable
class Codec(Protocol):
    """What an array is turned into on its way, and back."""

    def encode(self, array: Array, rng: np.random.Generator) -> Parts:
        """Turn an array into what is sent: arrays of plain numbers, of which bytes are counted."""
        ...

    def decode(self, parts: Parts) -> Tensor:
        """Turn what was sent, as any client may have made it, back into the array."""
        ...


@dataclass(frozen=True)
class Precision:
    """The codec that keeps numbers as they are, or rounds them.

    Attributes:
        kind: One of `ANSWERS`. "float32" sends an array as it is, of whatever dtype; "float16"
            clips to +-65504; "uint8" rounds each number to the nearest of 256 evenly spaced values
            from its row's least to its largest, an error of at most half a step.

    Raises:
        ValueError: It is none of these.
    """

    kind: str

    def __post_init__(self) -> None:
        if self.kind not in ANSWERS:
            raise ValueError(f"codec '{self.kind}': expected one of {', '.join(ANSWERS)}")

    def encode(self, array: Array, rng: np.random.Generator | None = None) -> dict[str, Array]:
        """Turn an array into what is sent.

        Args:
            array: [..., C]; what is not finite stays so, for the receiver to reject.
            rng: Not drawn from.

        Returns:
            It under "", or `codes` [..., C] uint8 and `ranges` [..., 2] float32, offset and step.
        """
        if self.kind == "float32":
            return {"": array}
        if self.kind == "float16":
            clipped = np.clip(array, -LARGEST_FLOAT16, LARGEST_FLOAT16)
            return {"": np.where(np.isfinite(array), clipped, array).astype(np.float16)}
        least, largest = array.min(-1), array.max(-1)
        # A row that is not finite, or too wide, has such a range: the receiver rejects it.
        with np.errstate(invalid="ignore", over="ignore"):
            step = (largest - least) / np.float32(LEVELS)
            scaled = (array - least[..., None]) / np.where(step > 0, step, 1)[..., None]
            codes = np.nan_to_num(scaled).round().clip(0, LEVELS).astype(np.uint8)
        return {"codes": codes, "ranges": np.stack([least, step], axis=-1)}

    def decode(self, parts: Parts, rows: Rows = ...) -> Tensor:
        """Turn what was sent back into the array.

        Args:
            parts: As `encode` gave them; arrays without write access are welcome.
            rows: Which of the first axis, all unless told otherwise.

        Returns:
            Float32 where it was rounded. Where it was not and the rows are a slice, it shares
            memory with `parts` and must not be written to.
        """
        if self.kind == "float32":
            return tensor_over(parts[""][rows])
        if self.kind == "float16":
            return tensor_over(parts[""][rows]).float()
        ranges = tensor_over(parts["ranges"][rows])
        codes = tensor_over(parts["codes"][rows]).float()
        return codes.mul_(ranges[..., 1:]).add_(ranges[..., :1])

    def expected(
        self, shape: tuple[int | None, ...], dtype: str = "float32"
    ) -> dict[str, tuple[tuple[int | None, ...], npt.DTypeLike]]:
        """Return shape and dtype of each part of an array, by name; None is any size."""
        if self.kind == "uint8":
            return {"codes": (shape, np.uint8), "ranges": ((*shape[:-1], 2), np.float32)}
        return {"": (shape, np.float16 if self.kind == "float16" else np.dtype(dtype).type)}

    def bound(self, parts: Parts) -> float:
        """Return the largest size that a decoded number can have; infinite or NaN if one is so.

        Args:
            parts: As `expected` describes them, with a number at least.

        Returns:
            A bound on the size of every number; for floats it is reached.
        """
        if self.kind != "uint8":
            # Not abs: on millions of answers its copy takes six times as long.
            return float(max(parts[""].max(), -parts[""].min()))
        offset, step = parts["ranges"].astype(np.float64).reshape(-1, 2).T
        return float((np.abs(offset) + LEVELS * np.abs(step)).max())


def codec_of(codec: Codec | str) -> Codec:
    """Return a codec: itself, or the precision of that name; ValueError if it is none."""
    if isinstance(codec, str):
        return Precision(codec)
    if not isinstance(codec, Codec):
        raise ValueError(f"codec {codec!r}: expected encode and decode, or {', '.join(ANSWERS)}")
    return codec


def tensor_over(array: Array) -> Tensor:
    """Return a tensor over an array's memory; not to be written to if the array is not.

    Unlike `torch.from_numpy` it does not warn of arrays over a message's bytes.
    """
    return from_dlpack(array)
