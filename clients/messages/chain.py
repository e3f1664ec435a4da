"""The chain of codecs: each encodes what the one before it made, such as top-k, 8 bits, zlib."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, Signature
from typing import Any

from clients.messages.codecs import (
    OF_PARAMETERS,
    RECEIVED,
    Array,
    Arrays,
    Codec,
    Offered,
    codec_of,
    is_private,
    told,
)
from clients.signatures import names, needs

AFTER = tuple(name for name in OF_PARAMETERS if name != RECEIVED)
"""What all but the first may name: what they encode has not been received by anybody."""


@dataclass(frozen=True)
class Chain:
    """The codec that is several, one after the other; decoded from the last to the first.

    The first codes arrays as it does alone, of parameters the difference to what was received; each
    of the others the parts that the one before it made. All draw from one generator, in turn. In
    the client's state each has names of its own, and what codec i notes as `name` is `name_i`,
    i = 0, 1, ... What later ones lose is in no memory of an earlier one. A codec that says
    `private = True` is the first: of what another made it would hide some parts only.

    Attributes:
        codecs: One at least; names of precisions too.

    Raises:
        ValueError: There are none, one needs what nobody gives it there, or a private one is not
            the first.
    """

    codecs: Sequence[Codec | str]

    def __post_init__(self) -> None:
        if isinstance(self.codecs, str) or not len(self.codecs):
            raise ValueError(f"codec Chain: codecs={self.codecs!r}, expected a list of codecs")
        found = tuple(
            codec_of(each, AFTER if place else OF_PARAMETERS, f"codec Chain: codecs[{place}]: ")
            for place, each in enumerate(self.codecs)
        )
        for place, each in enumerate(found):
            if place and is_private(each):
                raise ValueError(
                    f"codec Chain: codecs[{place}]: {type(each).__name__} is private, and what the "
                    "codec before it makes would go past it in part: expected it to be the first"
                )
        object.__setattr__(self, "codecs", found)

    @property
    def private(self) -> bool:
        """Whether the first is."""
        return is_private(next(self._placed())[1])

    @property
    def encode(self) -> Callable[..., Arrays]:
        """(arrays, all that one of them names) -> the parts that the last one made."""
        return _naming(self._encode, [codec.encode for _, codec in self._placed()])

    @property
    def decode(self) -> Callable[..., Arrays]:
        """(parts, `received` if the first names it) -> the arrays."""
        return _naming(self._decode, [next(self._placed())[1].decode])

    def _placed(self) -> Iterator[tuple[int, Codec]]:
        return enumerate(codec_of(codec, OF_PARAMETERS) for codec in self.codecs)

    def _encode(self, arrays: Arrays, given: dict[str, Any]) -> Arrays:
        for place, codec in self._placed():
            # A codec may call its parts as the one before it did, "layout" say.
            named = {f"{place}.{name}": each for name, each in arrays.items()} if place else arrays
            own: dict[str, Array] = _of_one(place, given.get("state") or {})
            arrays = told(codec.encode, named, _offered(place, given, own))
            if given.get("state") is not None:
                _put_back(place, given["state"], own)
        return arrays

    def _decode(self, arrays: Arrays, given: dict[str, Any]) -> Arrays:
        for place, codec in reversed([*self._placed()]):
            found = told(codec.decode, arrays, {} if place else _offered(0, given, {}))
            arrays = {n.removeprefix(f"{place}.") if place else n: a for n, a in found.items()}
        return arrays


# --- steps ---


def _naming(
    call: Callable[[Arrays, dict[str, Any]], Arrays], functions: Sequence[Callable[..., Arrays]]
) -> Callable[..., Arrays]:
    """Return a function that names what any of others names, and needs what any needs."""

    def chained(arrays: Arrays, **given: Any) -> Arrays:
        return call(arrays, given)

    parameters = [Parameter("arrays", Parameter.POSITIONAL_OR_KEYWORD)]
    for name in OF_PARAMETERS:
        if any(names(function, name) for function in functions):
            needed = any(needs(function, name) for function in functions)
            default = Parameter.empty if needed else None
            parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default))
    chained.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return chained


def _offered(place: int, given: dict[str, Any], own: dict[str, Array]) -> Offered:
    """Offer one codec what the chain was given: a state and notes of its own."""
    mine = {name: each for name, each in given.items() if not (place and name == RECEIVED)}
    if mine.get("state") is not None:
        mine["state"] = own
    if "note" in mine:
        mine["note"] = partial(_note_at, mine["note"], place)
    return {name: lambda each=each: each for name, each in mine.items()}  # type: ignore[misc]


def _note_at(note: Callable[..., None], place: int, /, **numbers: float) -> None:
    note(**{f"{name}_{place}": number for name, number in numbers.items()})


def _of_one(place: int, state: dict[str, Array]) -> dict[str, Array]:
    head = f"{place}."
    return {n.removeprefix(head): each for n, each in state.items() if n.startswith(head)}


def _put_back(place: int, state: dict[str, Array], own: dict[str, Array]) -> None:
    for name in [name for name in state if name.startswith(f"{place}.")]:
        del state[name]
    state |= {f"{place}.{name}": each for name, each in own.items()}
