"""The wire: what the parts of a field are called in a message, and how it gets there and back."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from clients.messages.codecs import (
    Array,
    Arrays,
    Codec,
    Offered,
    Precision,
    Rows,
    tensor_over,
    told,
)

NOTHING: Offered = {}


def encoded(
    codec: Codec,
    name: str,
    array: Array,
    rng: Callable[[str], np.random.Generator],
    about: Offered = NOTHING,
) -> dict[str, Array]:
    """Turn a field's array into what is sent, by the names on the wire.

    Args:
        codec: The field's.
        name: Of the field.
        array: It.
        rng: Name -> the generator of that name.
        about: What else the codec may name.

    Returns:
        Arrays by name.
    """
    if isinstance(codec, Precision):  # it does not draw, and a generator takes 15 us
        return {wire_name(name, part): each for part, each in codec.parts(array).items()}
    parts = told(codec.encode, {name: array}, {**about, "rng": lambda: rng(f"{name}.codec")})
    return {wire_name(name, "" if part == name else part): each for part, each in parts.items()}


def decoded(codec: Codec, name: str, arrays: Arrays, rows: Rows = ...) -> Tensor:
    """Turn what was sent back into a field's array.

    Args:
        codec: The field's.
        name: Of the field.
        arrays: All that came, by the names on the wire.
        rows: Which of the first axis, all unless told otherwise.

    Returns:
        The array, or some rows of it.

    Raises:
        ValueError: It was not sent, or the codec makes something else of it.
    """
    parts = parts_of(name, arrays)
    if isinstance(codec, Precision):
        return codec.array(parts, rows)
    found = told(codec.decode, {part or name: each for part, each in parts.items()}, NOTHING)
    if name not in found:
        raise ValueError(f"decode gave {', '.join(found) or 'nothing'}, expected '{name}'")
    array = found[name]
    whole = tensor_over(np.ascontiguousarray(array).reshape(array.shape))
    return whole if rows is ... else whole[rows]


def wire_name(name: str, part: str) -> str:
    """Return what a part of a field is called in a message."""
    head = name.replace("_", "-")
    return f"{head}.{part}" if part else head


def parts_of(name: str, arrays: Arrays) -> dict[str, Array]:
    """Find what was sent of a field by part, "" for its own name; ValueError if nothing was."""
    head = wire_name(name, "")
    parts = {
        key[len(head) + 1 :]: array
        for key, array in arrays.items()
        if key == head or key.startswith(f"{head}.")
    }
    if not parts:
        raise ValueError(f"{head} missing")
    return parts
