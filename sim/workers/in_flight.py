"""Groups on their way to workers that may be lost: whole ones, pieces, and what was sent where."""

from dataclasses import dataclass, field
from typing import Any

from sim.workers.tasks import Group, Outcome


@dataclass(eq=False)
class Whole:
    """A group that came in, and what has come of its pieces so far."""

    group: Group
    pieces: int
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    broke_up: bool = False


@dataclass(eq=False)
class Piece:
    """A group that is sent: a whole one, or one client of it; and what it went through."""

    group: Group
    whole: Whole
    part: int = 0
    deaths: int = 0
    losses: int = 0
    suspect: bool = False


@dataclass(eq=False)
class Sent:
    """A piece in a worker's queue."""

    piece: Piece
    answer: Any
    objects: list[Any]
