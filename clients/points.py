"""Points: where a function of a user's own goes in, what it gets, and what it is held to."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Check = Callable[[Any], str | None]
"""A plug-in -> what is wrong with it, None if nothing is. Its docstring's first line says what
ought to be so."""


@dataclass(frozen=True)
class Call:
    """How a function of a point is called.

    Attributes:
        returns: What it gives.
        places: What it is called with by position.
        names: What it gets if it names it.
        part: Its own name, where a point is of several functions.
    """

    returns: str
    places: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    part: str = ""


@dataclass(frozen=True)
class Point:
    """Where a function, or an object with a few, goes in.

    Attributes:
        kind: What it is called.
        key: Of the config.
        calls: Its functions.
        checks: What it is held to.
        made: Whether a target is called with its numbers, and returns what goes in.
    """

    kind: str
    key: str
    calls: tuple[Call, ...]
    checks: tuple[Check, ...]
    made: bool = False

    def lines(self) -> list[str]:
        """Say it in lines of a table: point, key, by position, by name, what it gives."""
        return [
            f"| {self.kind}{each.part and f' `{each.part}`'} | `{self.key}` | "
            f"{', '.join(each.places)} | {', '.join(each.names)} | {each.returns} |"
            for each in self.calls
        ]


HEAD = ("| point | key | by position | if it names it | gives |", "|---|---|---|---|---|")
"""Of the table."""


def places_of(function: Callable[..., Any], number: int) -> tuple[str, ...]:
    """Name the first arguments of a function that is shipped for a point."""
    return tuple(inspect.signature(function).parameters)[:number]
