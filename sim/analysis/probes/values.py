"""What a probe returns."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from clients.messages.round_views import RoundView
from sim.errors import ProbeError

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ByClient:
    """One number for each client of the view.

    Attributes:
        values: In the order of the view's client ids [K]; NaN where there is none.
    """

    values: npt.ArrayLike


@dataclass(frozen=True, eq=False)
class Table:
    """Values [R, S], to be drawn as a heat map.

    Attributes:
        values: [R, S]; NaN where there is none.
        rows: What a row stands for, such as "client".
        columns: What a column stands for, such as "class".
        row_names: One for each row; none = 0..R-1.
        column_names: One for each column; none = 0..S-1.
    """

    values: Numbers
    rows: str
    columns: str
    row_names: Sequence[object] = ()
    column_names: Sequence[object] = ()

    def __post_init__(self) -> None:
        named = [tuple(self.row_names), tuple(self.column_names)]
        if np.ndim(self.values) != 2:
            raise ProbeError(f"Table of shape {np.shape(self.values)}: expected two axes")
        for names, length in zip(named, np.shape(self.values), strict=True):
            if names and len(names) != length:
                raise ProbeError(f"Table of shape {np.shape(self.values)}: has {len(names)} names")


@dataclass(frozen=True, eq=False)
class Curve:
    """Lines over one axis, to be drawn.

    Attributes:
        x: Name of the axis below.
        y: Name of the axis at the side.
        lines: By name, (x, y) of equal lengths.
        diagonal: Whether x = y is drawn too.
    """

    x: str
    y: str
    lines: Mapping[str, tuple[Numbers, Numbers]]
    diagonal: bool = False

    def __post_init__(self) -> None:
        for name, (x, y) in self.lines.items():
            if np.ndim(x) != 1 or np.shape(x) != np.shape(y):
                shapes = f"{np.shape(x)} and {np.shape(y)}"
                raise ProbeError(f"Curve, line {name!r} of {shapes}: expected equal lengths")


Value = float | ByClient | Table | Curve
Probe = Callable[[RoundView], Mapping[str, Any]]


@runtime_checkable
class KeepsState(Protocol):
    """A probe that goes on, in a resumed run, from what it had seen."""

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return all that its later values depend on."""
        ...

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned."""
        ...


def require_probe(probe: Any, where: str) -> None:
    """Refuse what is no function of a round's view alone, before there is one.

    Args:
        probe: Of anyone.
        where: It stands, for the error.

    Raises:
        ProbeError: It is none; says what is, and how a function of a network is asked.
    """
    expected = "expected a function of a round's view"
    if not callable(probe):
        raise ProbeError(f"{where} is {type(probe).__name__}, {expected}")
    try:
        taken = inspect.signature(probe)
    except (TypeError, ValueError):  # of a builtin: nobody can tell
        return
    try:
        taken.bind("view")
    except TypeError as error:
        ask = "{_target_: sim.analysis.probes.Ask, of: {_target_: ..., _partial_: true}}"
        raise ProbeError(
            f"{where} takes {', '.join(taken.parameters) or 'nothing'} ({error}), {expected}; "
            f"one of network, inputs and labels is asked by {ask}"
        ) from error


def array(values: Tensor) -> Numbers:
    """Return a tensor as a float64 array."""
    return values.detach().double().numpy().copy()


def by_client(values: Tensor) -> ByClient:
    """Return a tensor [K] as one number for each client."""
    return ByClient(array(values))


def some_of(number: int, most: int) -> list[int]:
    """Choose at most so many of 0..number-1, >= 1, evenly spread, ascending."""
    if most < 1:
        raise ProbeError(f"most_clients={most}: expected an integer >= 1")
    places = np.linspace(0, number - 1, min(number, most)).round().astype(int)
    return [int(place) for place in np.unique(places)]
