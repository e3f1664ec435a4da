"""Codecs: what arrays are turned into on their way, and back; as they are, float16, or in 8 bits.

One of a user's own has `encode` and `decode`. It sits on a field of answers
(`clients.messages.field.Field`), on the logits (`strategy.ensemble.answers`), or on the parameters
that clients send (`clients.codec`) or are sent (`clients.codec_down`); those that are shipped
beside `Precision` are in `clients.messages.compression`. Bytes are counted after it: of N inputs
and C classes 4 N C, 2 N C or N C + 8 N, beside Flower's 128 bytes of header per array.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from clients.signatures import named_of, unoffered

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
"""Arrays by name, read-only; or what they are sent as, arrays of plain numbers too."""

Offered = Mapping[str, Callable[[], Any]]
"""What makes each thing that a codec may name."""

OF_ANSWERS = ("rng", "client_id", "server_round", "note")
RECEIVED = "received"
OF_PARAMETERS = (*OF_ANSWERS, RECEIVED, "state")
OF_REQUESTS = ("rng", "server_round")
"""What `encode` gets by name if it names it; of the second `decode` gets `received` too."""

Rows = slice | npt.NDArray[np.int64] | EllipsisType

ANSWERS = ("float32", "float16", "uint8")
LARGEST_FLOAT16 = 65504.0
LEVELS = 255
"""Steps between the least and the largest number of a row in 8 bits."""


@runtime_checkable
class Codec(Protocol):
    """What arrays are turned into on their way, and back. Both functions get what they name."""

    @property
    def encode(self) -> Callable[..., Arrays]:
        """(arrays, what it names of OF_ANSWERS or OF_PARAMETERS) -> arrays that are sent."""
        ...

    @property
    def decode(self) -> Callable[..., Arrays]:
        """(arrays as any client may have made them, `received`) -> those that were encoded.

        It raises what it likes where they are of no use.
        """
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

    def encode(self, arrays: Arrays) -> dict[str, Array]:
        """Turn arrays into what is sent: those of float32, the others as they are.

        Args:
            arrays: By name; in 8 bits a row is all of an index of the first axis, a vector is one.

        Returns:
            Arrays by name; of one in 8 bits `NAME.codes` and `NAME.ranges`.
        """
        sent = {}
        for name, array in arrays.items():
            if array.dtype != np.float32 or not array.size:
                sent[name] = array
            elif self.kind == "uint8":
                rows = array.reshape(len(array) if array.ndim > 1 else 1, -1)
                codes, ranges = self.parts(rows).values()
                sent |= {f"{name}.codes": codes.reshape(array.shape), f"{name}.ranges": ranges}
            else:
                sent |= {name: self.parts(array)[""]}
        return sent

    def decode(self, arrays: Arrays) -> dict[str, Array]:
        """Turn what was sent back into arrays of float32, and others as they were."""
        found = {}
        for name, array in arrays.items():
            base, _, part = name.rpartition(".")
            ranges = arrays.get(f"{base}.ranges")
            if part not in ("codes", "ranges") or ranges is None or f"{base}.codes" not in arrays:
                half = array.dtype == np.float16  # it came as it was, or in halves
                found[name] = array.astype(np.float32) if half else array
            elif part == "codes":
                rows = {"codes": array.reshape(len(ranges), -1), "ranges": ranges}
                found[base] = self.array(rows).numpy().reshape(array.shape)
        return found

    def parts(self, array: Array) -> dict[str, Array]:
        """Turn one array into what is sent.

        Args:
            array: [..., C]; what is not finite stays so, for the receiver to reject.

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

    def array(self, parts: Arrays, rows: Rows = ...) -> Tensor:
        """Turn what was sent back into the array.

        Args:
            parts: As `parts` gave them; arrays without write access are welcome.
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

    def bound(self, parts: Arrays) -> float:
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


def is_private(codec: Codec) -> bool:
    """Tell whether a codec hides what is sent: `private = True`, and nothing may go past it."""
    return getattr(codec, "private", False) is True


def codec_of(codec: Codec | str, offered: Collection[str] = OF_ANSWERS, key: str = "") -> Codec:
    """Look up a codec.

    Args:
        codec: One, or the name of a precision.
        offered: What it may name as it encodes.
        key: What an error begins with.

    Returns:
        Itself, or the precision of that name.

    Raises:
        ValueError: It is none, or needs what nobody gives it.
    """
    if codec in ANSWERS:
        return Precision(str(codec))
    if isinstance(codec, type | str) or not isinstance(codec, Codec):
        expected = f"expected one of {', '.join(ANSWERS)}, or an object with encode and decode"
        raise ValueError(f"{key}codec {codec!r}: {expected}")
    decoding = [name for name in offered if name == RECEIVED]
    for what, there in (("encode", offered), ("decode", decoding)):
        if (name := unoffered(getattr(codec, what), 1, there)) is not None:
            raise ValueError(
                f"{key}codec {type(codec).__name__}: {what} needs '{name}', which nobody gives it: "
                f"expected of {', '.join(there) or 'nothing'}"
            )
    return codec


def told(function: Callable[..., Arrays], arrays: Arrays, offered: Offered) -> dict[str, Array]:
    """Call `encode` or `decode` with what it names.

    Args:
        function: One of a codec's.
        arrays: What it turns into others; they are lent without write access.
        offered: What it may name.

    Returns:
        What it gave.

    Raises:
        ValueError: That is not arrays by name.
    """
    lent = {name: np.asarray(array).view() for name, array in arrays.items()}
    for array in lent.values():
        array.flags.writeable = False
    found: object = function(lent, **named_of(function, offered))
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"gave {type(found).__name__}, expected arrays by name")
    return {name: np.asarray(array) for name, array in found.items()}


def tensor_over(array: Array) -> Tensor:
    """Return a tensor over an array's memory; not to be written to if the array is not.

    Unlike `torch.from_numpy` it does not warn of arrays over a message's bytes.
    """
    return from_dlpack(array)
