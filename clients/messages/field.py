"""The field: one named array of a client's answers, what it is made of, and how it travels.

A strategy lists the fields that it asks for beside logits, `strategy/ask=[features]`; scorers find
them in `Answers` by their names, a student's objective among its anchors. Those that are shipped
are in `clients.messages.shipped_fields`; one of a user's own is a `Field` that a function returns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clients.messages.arrays import PLAIN
from clients.messages.codecs import Array, Arrays, Codec, Offered, Precision, Rows, codec_of
from clients.messages.field_source import Asked
from clients.messages.field_wire import NOTHING, decoded, encoded, parts_of, wire_name

Shape = tuple[str | int | None, ...]
"""Of one client's array: "N" inputs asked about, "R" rows of answers to them (one each, but for
tasks with several), "C" classes, a number, or None for any."""

ROWS = ("N", "R")

MAX_ANSWER = 1e30
"""Largest size of a number in answers: a logit divided by a temperature of 1e-8 is still finite in
float32."""

MAX_FIELD = 1e15
"""Largest size of a number in any other field: that of parameters, whose squares can be summed."""

TAKEN = ("logits", "own_probs", "mask", "weights", "start")
"""Names that answers, or anchors of a student's objective, have already."""


@dataclass(frozen=True, eq=False)
class Field:
    """One named array of a client's answers; its name is the key under which it is asked for.

    Attributes:
        of: What the client says, of its shape; a tensor or an array. It keeps nothing but what it
            puts into the client's state.
        shape: Of the array. With "N" first it has a row for each input, with "R" for each
            row of answers; else it says something of the client.
        dtype: Of the array, one of numpy's.
        codec: How it travels: a `Codec`, or "float32" for as it is, "float16", "uint8". A codec is
            given an array of the field's name.
        fault: What comes out of the codec, a read-only array -> why it is of no use, or None. That
            it is of its shape and dtype, finite, and not beyond 1e15 has been looked at.
        taps: Places of the network where features are read; clients then answer one by one.
        tested: Whether the test set is asked about too, where there is a row for each input: what
            scorers look at must be, for the ensemble is measured there. What says something of
            the client is asked once in a round, in any case.
        more_examples: (private examples, negatives) -> of how many it asks the network beside the
            inputs, for the virtual clock.

    Raises:
        ValueError: Shape, dtype or codec are none, or do not go together.
    """

    of: Callable[[Asked], Any]
    shape: Shape = ("N",)
    dtype: str = "float32"
    codec: Codec | str = "float32"
    fault: Callable[[Array], str | None] | None = None
    taps: tuple[str, ...] = ()
    tested: bool = True
    more_examples: Callable[[int, int], int] | None = None

    def __post_init__(self) -> None:
        for name in ("shape", "taps"):
            if isinstance(value := getattr(self, name), str):  # ("N") is no tuple
                raise ValueError(f"field: {name} is {value!r}, expected a tuple")
        for place, size in enumerate(self.shape):
            if not (size in (None, "C") or (size in ROWS and place == 0) or _natural(size)):
                raise ValueError(
                    f'field: shape {self.shape}: expected "N" or "R" (first), "C", None, or '
                    "numbers >= 1"
                )
        if self.dtype not in PLAIN:
            raise ValueError(f"field: dtype '{self.dtype}': expected one of {', '.join(PLAIN)}")
        codec = codec_of(self.codec)
        if isinstance(codec, Precision) and codec.kind != "float32":
            if np.dtype(self.dtype) != np.float32:
                raise ValueError(f"field: codec '{codec.kind}' is for float32, not {self.dtype}")
            if codec.kind == "uint8" and len(self.shape) < 2:
                raise ValueError("field: codec 'uint8' is for rows, expected a shape of two axes")
        object.__setattr__(self, "codec", codec)

    @property
    def per_input(self) -> bool:
        """Whether it has a row for each input, or for each row of answers."""
        return bool(self.shape) and self.shape[0] in ROWS

    def sizes(self, num_inputs: int, num_classes: int, sites: int = 1) -> tuple[int | None, ...]:
        """Return the shape of one client's array; None = any."""
        known = {"N": num_inputs, "R": num_inputs * sites, "C": num_classes}
        return tuple(known[size] if isinstance(size, str) else size for size in self.shape)

    def said(self, name: str, asked: Asked) -> Array:
        """Let a client say it.

        Args:
            name: Of the field.
            asked: The client.

        Returns:
            The array.

        Raises:
            ValueError: It cannot, or it is of another shape, or not of the dtype; names it.
        """
        own = {tap: asked.taps[tap] for tap in self.taps if tap in asked.taps}
        streams = asked.rng
        told = replace(asked, taps=own, rng=lambda stream: streams(f"{name}.{stream}"))
        try:
            value = self.of(told)
        except Exception as error:  # anyone's code
            raise ValueError(f"field '{name}': {type(error).__name__}: {error}") from error
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        rows, classes = asked.logits.shape
        wanted = self.sizes(len(asked.ids), classes, rows // max(1, len(asked.ids)))
        if not _fits(array.shape, wanted):
            raise ValueError(f"field '{name}' is of shape {array.shape}, expected {wanted}")
        with np.errstate(invalid="ignore"):  # NaN as a whole number: named below
            cast = np.asarray(array, dtype=self.dtype, order="C")
        if cast.dtype.kind in "iub" and not np.array_equal(cast, array):
            odd = array.flatten()[int((cast != array).argmax())]
            raise ValueError(f"field '{name}': {odd} is not of {self.dtype}")
        return cast

    def encode(
        self,
        name: str,
        array: Array,
        rng: Callable[[str], np.random.Generator],
        about: Offered = NOTHING,
    ) -> dict[str, Array]:
        """Turn an array into what is sent, as `clients.messages.field_wire.encoded`."""
        assert not isinstance(self.codec, str), "it was looked up"
        return encoded(self.codec, name, array, rng, about)

    def decode(self, name: str, arrays: Arrays, rows: Rows = ...) -> Tensor:
        """Turn what was sent back into the array, as `clients.messages.field_wire.decoded`."""
        assert not isinstance(self.codec, str), "it was looked up"
        return decoded(self.codec, name, arrays, rows)

    def fault_in(self, name: str, arrays: Arrays, *size: int) -> str | None:
        """Say what is wrong with what a client sent, of a size as `sizes` takes it; or None."""
        wanted = self.sizes(*size)
        look = self._fault_in_parts if isinstance(self.codec, Precision) else self._fault_in_decoded
        reason = look(name, arrays, wanted)
        if reason or self.fault is None:
            return reason
        array = self.decode(name, arrays).numpy().view()
        array.flags.writeable = False  # it may lie over the message
        reason = self.fault(array)
        return f"array 'predictions/{wire_name(name, '')}' {reason}" if reason else None

    def _fault_in_decoded(
        self, name: str, arrays: Arrays, wanted: tuple[int | None, ...]
    ) -> str | None:
        """Look at what a user's codec makes of what was sent."""
        where = f"array 'predictions/{wire_name(name, '')}'"
        try:
            array = self.decode(name, arrays).numpy()
        except Exception as error:  # anyone's codec, anyone's bytes
            return f"{where} cannot be decoded: {error}"
        if not _fits(array.shape, wanted) or array.dtype != np.dtype(self.dtype):
            return f"{where} is {array.dtype} {array.shape}, expected {self.dtype} {wanted}"
        limit = _limit_of(name)
        if array.dtype.kind == "f" and not bool((np.abs(array) <= limit).all()):
            return f"{where} is not finite, or goes beyond {limit:.0e}"
        return None

    def _fault_in_parts(
        self, name: str, arrays: Arrays, wanted: tuple[int | None, ...]
    ) -> str | None:
        """Look at what was sent without decoding it: answers are millions of numbers."""
        assert isinstance(self.codec, Precision), "of others nothing is known"
        expected = self.codec.expected(wanted, self.dtype)
        keys = {part: wire_name(name, part) for part in expected}
        for part, (shape, dtype) in expected.items():
            if (array := arrays.get(key := keys[part])) is None:
                return f"{key} missing"
            if not _fits(array.shape, shape) or array.dtype != dtype:
                return (
                    f"array 'predictions/{key}' is {array.dtype} {array.shape}, "
                    f"expected {np.dtype(dtype)} {shape}"
                )
        parts = {part: arrays[key] for part, key in keys.items()}
        floats = np.dtype(self.dtype).kind == "f" and all(each.size for each in parts.values())
        limit = _limit_of(name)
        if floats and not self.codec.bound(parts) <= limit:
            return f"array 'predictions/{next(iter(keys.values()))}' goes beyond {limit:.0e}"
        return None

    def bound(self, name: str, arrays: Arrays) -> float:
        """Return the largest size that a number can have, of a precision without decoding it."""
        if isinstance(self.codec, Precision):
            return self.codec.bound(parts_of(name, arrays))
        return float(self.decode(name, arrays).abs().max())

    def sends(self, name: str, key: str) -> bool:
        """Tell whether an array of this name on the wire is one of its parts."""
        if isinstance(self.codec, Precision):
            return key in {wire_name(name, part) for part in self.codec.expected(())}
        return key.split(".")[0] == wire_name(name, "")

    def made_up(
        self,
        num_clients: int,
        num_inputs: int,
        num_classes: int,
        largest: float = 1.0,
        sites: int = 1,
    ) -> Tensor:
        """Make up numbers to try rules on.

        Args:
            num_clients: K.
            num_inputs: N.
            num_classes: C.
            largest: Numbers lie in [0, largest), small ones as often as large ones beyond 1; whole
                ones too, truth values are mixed.
            sites: Rows of answers of each input.

        Returns:
            [K, ...].
        """
        sizes = [size or 5 for size in self.sizes(num_inputs, num_classes, sites)]
        rng = np.random.default_rng(0)
        drawn = [num_clients, *(size if place in (0, len(sizes) - 1) else 1  # no need for more
                                for place, size in enumerate(sizes))]  # fmt: skip
        numbers: Array = rng.random(drawn, dtype=np.float32) * largest ** rng.random(drawn)
        if np.dtype(self.dtype).kind == "b":
            numbers = rng.random(drawn) < 0.5
        made = torch.from_numpy(numbers.astype(self.dtype))
        return made.expand(num_clients, *sizes).clone()


Fields = Mapping[str, Field]
"""Fields by name."""

NO_FIELDS: Fields = {}


def as_they_are(fields: Fields) -> dict[str, Field]:
    """Return fields whose arrays travel as they are."""
    return {name: replace(each, codec="float32") for name, each in fields.items()}


def _limit_of(name: str) -> float:
    return MAX_ANSWER if name == "logits" else MAX_FIELD


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        size is None or size == found for found, size in zip(shape, wanted, strict=True)
    )


def _natural(size: Any) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and size >= 1
