"""Differences to what was received, all as one vector, and the layout it is cut into again.

The layout travels as JSON, bytes of a part: whoever sent it may have made it.
"""

import json
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from clients.messages.arrays import PLAIN
from clients.messages.codecs import Array, Arrays

Vector = npt.NDArray[np.float32]

LAYOUT = "layout"
"""Name of the part."""


def difference(arrays: Arrays, received: Arrays) -> dict[str, Array]:
    """Take off arrays of float32 what was received.

    Args:
        arrays: By name.
        received: Of all those names; or nothing, and nothing is taken off.

    Returns:
        The arrays.
    """
    return {
        name: np.asarray(array - received[name], dtype=np.float32)
        if received and array.dtype == np.float32
        else array
        for name, array in arrays.items()
    }


def restored(arrays: Arrays, received: Arrays) -> dict[str, Array]:
    """Undo `difference`."""
    return {
        name: np.asarray(array + received[name], dtype=np.float32)
        if received and array.dtype == np.float32
        else array
        for name, array in arrays.items()
    }


def flat(arrays: Arrays, received: Arrays) -> tuple[Vector, dict[str, Array]]:
    """Put the differences of arrays of float32 behind each other.

    Args:
        arrays: By name.
        received: As in `difference`.

    Returns:
        The vector [D], and the parts beside it: its layout, and arrays of other dtypes.
    """
    own = {name: each for name, each in arrays.items() if each.dtype == np.float32}
    rows = [array.ravel() for array in difference(own, received).values()]
    vector = np.concatenate(rows) if rows else np.zeros(0, np.float32)
    beside = {name: array for name, array in arrays.items() if name not in own}
    return vector, {LAYOUT: layout_of([[name, each.shape] for name, each in own.items()]), **beside}


def cut(
    vector: Vector, parts: Arrays, received: Arrays, used: tuple[str, ...] = ()
) -> dict[str, Array]:
    """Undo `flat`.

    Args:
        vector: As long as the layout says, see `size_of`.
        parts: The layout, and arrays of other dtypes.
        received: As `flat` had it.
        used: Names of parts that are left out.

    Returns:
        The arrays.
    """
    found, start = {}, 0
    for name, shape in _shapes(parts):
        found[name] = vector[start : start + prod(shape)].reshape(shape)
        start += found[name].size
    beside = {name: array for name, array in parts.items() if name not in (LAYOUT, *used)}
    return {**restored(found, received), **beside}


def size_of(parts: Arrays) -> int:
    """Return how many numbers a layout is of, D: any number that anyone has written."""
    return sum(prod(shape) for _, shape in _shapes(parts))


def layout_of(told: list[Any]) -> Array:
    """Write a layout [n] uint8."""
    return np.frombuffer(json.dumps(told, separators=(",", ":")).encode(), np.uint8)


def read_layout(parts: Arrays) -> Any:
    """Read what `layout_of` wrote; anything, where it did not."""
    return json.loads(parts[LAYOUT].tobytes())


def shape_of(said: Any) -> tuple[int, ...]:
    """Return a shape; ValueError if it is none."""
    if not all(type(size) is int and size >= 0 for size in said):
        raise ValueError(f"{said} is no shape")
    return tuple(said)


def dtype_of(name: Any) -> np.dtype[Any]:
    """Return the dtype of a name; ValueError if it is none of plain numbers."""
    if name not in PLAIN:
        raise ValueError(f"dtype {name!r}: expected one of {', '.join(PLAIN)}")
    dtype: np.dtype[Any] = np.dtype(name)
    return dtype


def _shapes(parts: Arrays) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, shape_of(shape)) for name, shape in read_layout(parts)]
