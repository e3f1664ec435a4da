"""Payloads that go from client to client: kept where they were made, mixed where they are wanted.

Whoever routes says which payloads each receiver gets and how they are mixed; it never holds one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from flwr.app import Message, RecordDict

from clients.messages.accumulator import Intake


@dataclass(frozen=True)
class Letter:
    """One payload on its way to one receiver.

    Attributes:
        sender: Client id of who made it.
        name: Of the payload, as `clients.messages.accumulator.Keep` said.
        weight: The receiver's mixing weight of it, > 0.
    """

    sender: int
    name: str
    weight: float


Mix = Callable[[int, Sequence[tuple[Letter, RecordDict]]], RecordDict]
"""(receiver, its letters with their payloads, by sender) -> records that its message gets."""


@dataclass(frozen=True, eq=False)
class Post:
    """What is delivered with messages.

    Attributes:
        letters: By receiver, in the order in which they are to be mixed.
        mix: Makes one content of them, where the receiver runs; a pure function.
    """

    letters: Mapping[int, Sequence[Letter]]
    mix: Mix


class KeptPayloads(Protocol):
    """Payloads by name and client."""

    def size(self, name: str, client_id: int) -> int:
        """Return the bytes of a payload."""
        ...

    def read(self, name: str, client_id: int) -> RecordDict:
        """Fetch a payload."""
        ...

    def keep(
        self, name: str, client_id: int, payload: RecordDict, weighs: int | None = None
    ) -> None:
        """Take in a payload that was not made here, and its bytes; None = those it has now."""
        ...

    def forget(self, names: Iterable[str]) -> None:
        """Drop the payloads of these names."""
        ...


@runtime_checkable
class Routing(Protocol):
    """A grid that keeps payloads where they were made and delivers them, as our engine's does."""

    @property
    def payloads(self) -> KeptPayloads:
        """What it keeps."""
        ...

    def send_with_post(
        self, messages: Iterable[Message], post: Post, intake: Intake
    ) -> Iterable[Message]:
        """Send messages, to each its letters mixed; return the replies as the intake says."""
        ...
