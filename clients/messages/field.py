"""The field: one named array of a client's answers, what it is made of, and how it travels.

A strategy lists the fields that it asks for beside logits, `strategy/ask=[features]`; scorers,
combiners and the student's objective find them in `Answers` by their names. Those that are shipped
are in `clients.messages.fields`; one of a user's own is a `Field` that any function returns.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import RecordDict
from torch import Tensor, nn

from clients.data import Dataset, normalised
from clients.messages.codecs import Array, Codec, Precision, Rows, codec_of
from clients.training.taps import PENULTIMATE

Shape = tuple[str | int | None, ...]
"""Of one client's array: "N" inputs asked about, "C" classes, a number, or None for any."""

MAX_ANSWER = 1e30
"""Largest size of a number in answers: a logit divided by a temperature of 1e-8 is still finite in
float32."""

TAKEN = ("logits", "own_probs", "mask")
"""Names that answers have already."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What a field is made of: a client's network, asked about inputs, and what is the client's.

    Attributes:
        client_id: Whose.
        server_round: 1..R.
        logits: What the network says [N, C] float32, on the CPU.
        taps: Features at the field's taps [N, ...] float32, on the CPU.
        dataset: Where the inputs are.
        ids: Which they are [N].
        private: Where the client's own examples are.
        indices: Which are its own [n].
        labels: Returns those that it learns [n].
        proxy: Where negatives are.
        negative_ids: Proxy examples to tell its own from [m]; None = there is nothing to be fitted.
        network: Returns its network, in train mode, on its device.
        state: Records of its state; what is put there it has in its next round.
        rng: Name -> the generator of that name, of this client, round and these inputs.
    """

    client_id: int
    server_round: int
    logits: Tensor
    taps: Mapping[str, Tensor]
    dataset: Dataset
    ids: npt.NDArray[np.int64]
    private: Dataset
    indices: npt.NDArray[np.int64]
    labels: Callable[[], npt.NDArray[np.int64]]
    proxy: Dataset
    negative_ids: npt.NDArray[np.int64] | None
    network: Callable[[], nn.Module]
    state: RecordDict
    rng: Callable[[str], np.random.Generator]

    @property
    def inputs(self) -> npt.NDArray[np.float32]:
        """The inputs as networks see them [N, ...]."""
        return normalised(self.dataset, self.ids)

    def features(self, tap: str = PENULTIMATE) -> Tensor:
        """Return the features of the inputs at one of the field's taps [N, ...]."""
        if tap not in self.taps:
            raise ValueError(f"tap '{tap}': not in the field's taps, {list(self.taps)}")
        return self.taps[tap]


@dataclass(frozen=True, eq=False)
class Field:
    """One named array of a client's answers; its name is the key under which it is asked for.

    Attributes:
        of: What the client says, of its shape; a tensor or an array. It keeps nothing but what it
            puts into the client's state.
        shape: Of the array. With "N" first it has a row for each input, else it says something of
            the client.
        dtype: Of the array, one of numpy's.
        codec: How it travels: a `Codec`, or "float32" for as it is, "float16", "uint8".
        fault: What comes out of the codec, an array -> why it is of no use, or None. That it is of
            its shape and dtype, finite, and not beyond 1e30 has been looked at.
        taps: Places of the network where features are read; clients then answer one by one.
        tested: Whether the test set is asked about too. What scorers and combiners look at must be,
            for the ensemble is measured there.
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
            if not (size is None or size == "C" or (size == "N" and place == 0) or _natural(size)):
                raise ValueError(
                    f'field: shape {self.shape}: expected "N" (first), "C", None, or numbers >= 1'
                )
        if np.dtype(self.dtype).kind not in "fiub":
            raise ValueError(f"field: dtype '{self.dtype}': expected numbers")
        codec = codec_of(self.codec)
        if isinstance(codec, Precision) and codec.kind != "float32":
            if np.dtype(self.dtype) != np.float32:
                raise ValueError(f"field: codec '{codec.kind}' is for float32, not {self.dtype}")
            if codec.kind == "uint8" and len(self.shape) < 2:
                raise ValueError("field: codec 'uint8' is for rows, expected a shape of two axes")
        object.__setattr__(self, "codec", codec)

    @property
    def per_input(self) -> bool:
        """Whether it has a row for each input."""
        return self.shape[:1] == ("N",)

    def sizes(self, num_inputs: int, num_classes: int) -> tuple[int | None, ...]:
        """Return the shape of one client's array; None = any."""
        known = {"N": num_inputs, "C": num_classes}
        return tuple(known[size] if isinstance(size, str) else size for size in self.shape)

    def said(self, name: str, asked: Asked) -> Array:
        """Let a client say it.

        Args:
            name: Of the field.
            asked: The client.

        Returns:
            The array.

        Raises:
            ValueError: It cannot, or it is of another shape; names it.
        """
        try:
            value = self.of(asked)
        except Exception as error:  # anyone's code
            raise ValueError(f"field '{name}': {type(error).__name__}: {error}") from error
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        wanted = self.sizes(*asked.logits.shape)
        if not _fits(array.shape, wanted):
            raise ValueError(f"field '{name}' is of shape {array.shape}, expected {wanted}")
        return np.ascontiguousarray(array, dtype=self.dtype)

    def encode(self, name: str, array: Array, rng: np.random.Generator) -> dict[str, Array]:
        """Turn an array into what is sent, by the names on the wire."""
        assert not isinstance(self.codec, str), "it was looked up"
        return {wire_name(name, part): p for part, p in self.codec.encode(array, rng).items()}

    def decode(self, name: str, arrays: Mapping[str, Array], rows: Rows = ...) -> Tensor:
        """Turn what was sent back into the array.

        Args:
            name: Of the field.
            arrays: All that came, by the names on the wire.
            rows: Which of the first axis, all unless told otherwise.

        Returns:
            The array, or some rows of it.

        Raises:
            ValueError: It was not sent.
        """
        assert not isinstance(self.codec, str), "it was looked up"
        head = wire_name(name, "")
        parts = {
            key[len(head) + 1 :]: array
            for key, array in arrays.items()
            if key == head or key.startswith(f"{head}.")
        }
        if not parts:
            raise ValueError(f"{head} missing")
        return self.codec.decode(parts, rows)

    def fault_in(
        self, name: str, arrays: Mapping[str, Array], num_inputs: int, num_classes: int
    ) -> str | None:
        """Say what is wrong with what a client sent; None if nothing is."""
        wanted = self.sizes(num_inputs, num_classes)
        if isinstance(self.codec, Precision):
            reason = self._fault_in_parts(name, arrays, wanted)
            if reason or self.fault is None:
                return reason
        where = f"array 'predictions/{wire_name(name, '')}'"
        try:
            array = self.decode(name, arrays).numpy()
        except Exception as error:  # anyone's codec, anyone's bytes
            return f"{where} cannot be decoded: {error}"
        if not _fits(array.shape, wanted) or array.dtype != np.dtype(self.dtype):
            return f"{where} is {array.dtype} {array.shape}, expected {self.dtype} {wanted}"
        if array.dtype.kind == "f" and not bool((np.abs(array) <= MAX_ANSWER).all()):
            return f"{where} is not finite, or goes beyond {MAX_ANSWER:.0e}"
        reason = None if self.fault is None else self.fault(array)
        return f"{where} {reason}" if reason else None

    def _fault_in_parts(
        self, name: str, arrays: Mapping[str, Array], wanted: tuple[int | None, ...]
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
        if floats and not self.codec.bound(parts) <= MAX_ANSWER:
            return f"array 'predictions/{next(iter(keys.values()))}' goes beyond {MAX_ANSWER:.0e}"
        return None

    def sends(self, name: str, key: str) -> bool:
        """Tell whether an array of this name on the wire is one of its parts."""
        if isinstance(self.codec, Precision):
            return key in {wire_name(name, part) for part in self.codec.expected(())}
        return key.split(".")[0] == wire_name(name, "")

    def made_up(self, num_clients: int, num_inputs: int, num_classes: int) -> Tensor:
        """Make up numbers in [0, 1), or zeros where they are whole, to try rules on [K, ...]."""
        sizes = [size or 5 for size in self.sizes(num_inputs, num_classes)]
        rng = np.random.default_rng(0)
        drawn = rng.random((num_clients, *sizes))
        return torch.from_numpy(drawn.astype(self.dtype))


Fields = Mapping[str, Field]
"""Fields by name."""

NO_FIELDS: Fields = {}


def wire_name(name: str, part: str) -> str:
    """Return what a part of a field is called in a message."""
    head = name.replace("_", "-")
    return f"{head}.{part}" if part else head


def check_names(fields: Fields, section: str) -> None:
    """Refuse what cannot be asked for.

    Args:
        fields: By name.
        section: Of the config, for errors.

    Raises:
        ValueError: A name is none, or taken, or something is no field; names it.
    """
    for name, each in fields.items():
        if not str(name).isidentifier() or name in TAKEN:
            raise ValueError(
                f"{section}.{name}: expected a name of letters, digits and _ that is none of "
                f"{', '.join(TAKEN)}"
            )
        if not isinstance(each, Field):
            raise ValueError(f"{section}.{name}: {each!r}, expected a clients.messages.field.Field")


def key_of(name: str, crc32: int) -> int:
    """Return the number that keys a field's random stream, of its name and the inputs' CRC32."""
    return zlib.crc32(name.encode(), crc32)


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        size is None or size == found for found, size in zip(shape, wanted, strict=True)
    )


def _natural(size: Any) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and size >= 1
