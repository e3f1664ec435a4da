"""What becomes of replies on their way: folded where they are made, sifted, or kept there."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from flwr.app import Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID

Fault = Callable[[Message, Message], str | None]
"""(request, reply) -> why the reply is of no use, or None if it is of use."""


class Accumulator(Protocol):
    """What the contents of replies are pushed into, one by one; they are kept no longer."""

    def add(self, content: RecordDict) -> None:
        """Take in the content of a usable reply."""
        ...

    def merge(self, part: RecordDict) -> None:
        """Take in what another one, of other clients, came to."""
        ...

    def part(self) -> RecordDict:
        """Return what it has come to; called once, after at least one `add` or `merge`."""
        ...


@dataclass(frozen=True, eq=False)
class Reducer:
    """How the answers of many clients become one, part by part, where they are made.

    A worker adds the replies of a group of clients, the driver merges the parts, in an order that
    the cohort alone decides. One reply is in memory at a time.

    Attributes:
        accumulator: Makes an empty one.
        fault: (request, reply) -> why an otherwise usable reply cannot be added, or None; None =
            each can.
    """

    accumulator: Callable[[], Accumulator]
    fault: Fault | None = None

    def fold(self, contents: Iterable[RecordDict]) -> RecordDict:
        """Make a part of contents of replies, at least one."""
        sums = self.accumulator()
        for content in contents:
            sums.add(content)
        return sums.part()

    def merge(self, parts: Iterable[RecordDict]) -> RecordDict:
        """Make a part of parts, at least one."""
        sums = self.accumulator()
        for part in parts:
            sums.merge(part)
        return sums.part()


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
        """Send messages; return the part of all usable replies (`is_part`), the others as is."""
        ...


@runtime_checkable
class Receiving(Protocol):
    """A strategy that says what becomes of replies on their way to it."""

    def intake(self, server_round: int, phase: str) -> Intake:
        """Say what becomes of replies of a phase, "train" or "evaluate"; None = they come."""
        ...


def fold_replies(accumulator: Accumulator, replies: Iterable[Message]) -> int:
    """Push replies into an accumulator: parts that others came to, and what clients say themselves.

    Args:
        accumulator: Of what the intake that made the parts has.
        replies: As `aggregate_train` gets them; those with an error are passed over.

    Returns:
        How many were pushed; 0 = there is nothing to aggregate.
    """
    usable = [reply for reply in replies if reply.has_content()]
    for reply in usable:
        (accumulator.merge if is_part(reply) else accumulator.add)(reply.content)
    return len(usable)


def part_message(part: RecordDict, like: Message) -> Message:
    """Put a part among replies.

    Args:
        part: It.
        like: One of the requests.

    Returns:
        A message in the server's own name.
    """
    message = Message(part, reply_to=like)
    message.metadata.__dict__["_src_node_id"] = SUPERLINK_NODE_ID
    return message


def is_part(message: Message) -> bool:
    """Tell what replies were reduced to from a client's own reply."""
    return message.has_content() and message.metadata.src_node_id == SUPERLINK_NODE_ID
