"""What becomes of replies on their way: folded where they are made, sifted, or kept there."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from flwr.app import Message, RecordDict

Fault = Callable[[Message, Message], str | None]
"""(request, reply) -> why the reply is of no use, or None if it is of use."""


@dataclass(frozen=True, eq=False)
class Reducer:
    """How the answers of many clients become one, part by part, where they are made.

    A worker folds the replies of a group of clients, the driver merges the parts, in an order that
    the cohort alone decides. Both take an iterator that makes its items as they are asked for, so
    that no more than one need be in memory.

    Attributes:
        fold: Contents of usable replies of one group, at least one -> content of a part.
        merge: Contents of parts, at least one -> content of a part.
        fault: (request, reply) -> why an otherwise usable reply cannot be folded, or None;
            None = each can.
    """

    fold: Callable[[Iterable[RecordDict]], RecordDict]
    merge: Callable[[Iterable[RecordDict]], RecordDict]
    fault: Fault | None = None


@dataclass(frozen=True, eq=False)
class Sieve:
    """Which answers come, and what of each, where they are not folded.

    Attributes:
        fault: (request, reply) -> why an otherwise usable reply is of no use, or None; None = each
            is of use.
        show: Content of a reply -> what of it comes to the strategy; None = all.
    """

    fault: Fault | None = None
    show: Callable[[RecordDict], RecordDict] | None = None


@dataclass(frozen=True, eq=False)
class Keep:
    """An intake by which replies stay where they were made, as payloads.

    Attributes:
        name: Under which each client's is kept.
        show: Content of a reply -> what of it comes to the strategy.
        fault: (request, reply) -> why an otherwise usable reply is of no use, or None; None = each
            is.
    """

    name: str
    show: Callable[[RecordDict], RecordDict]
    fault: Fault | None = None


Intake = Reducer | Sieve | Keep | None
"""What becomes of a phase's usable replies; None = each comes as it is."""


@runtime_checkable
class Folding(Protocol):
    """A grid that folds replies where they are made, as our engine's does."""

    def send_and_fold(self, messages: Iterable[Message], intake: Intake) -> Iterable[Message]:
        """Send messages; return one reply for all usable ones, and the others as they are."""
        ...


@runtime_checkable
class Receiving(Protocol):
    """A strategy that says what becomes of replies on their way to it."""

    def intake(self, server_round: int, phase: str) -> Intake:
        """Say what becomes of replies of a phase, "train" or "evaluate"; None = they come."""
        ...
