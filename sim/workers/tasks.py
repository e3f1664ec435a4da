"""A group of clients' tasks, and what came of it: what goes to a worker and comes back."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message, Metadata, RecordDict
from flwr.clientapp import ClientApp

from clients.app import SimulatedApp
from clients.handlers.base import Handler, by_kind
from clients.messages.accumulator import Intake
from clients.messages.payload_routing import Letter, Mix


@dataclass(frozen=True, eq=False)
class Program:
    """What clients run, and what is known of the messages that they get.

    Attributes:
        app: Of all clients.
        handlers: By type of message, whoever answers it: what may come back, what only measures.
    """

    app: ClientApp
    handlers: Mapping[str, Handler]


def program_of(app: ClientApp, handlers: Iterable[Handler] = ()) -> Program:
    """Put a program together.

    Args:
        app: Of all clients; ours knows its own handlers.
        handlers: Of a strategy, where the app is not ours and answers its messages all the same.

    Returns:
        The program.
    """
    own = app.handlers if isinstance(app, SimulatedApp) else {}
    return Program(app, own | by_kind(handlers))


@dataclass(frozen=True, eq=False)
class Task:
    """One message to one client.

    Attributes:
        client_id: Who is to answer.
        turn: How many messages this client had in this round before this one.
        metadata: The message's, content aside.
    """

    client_id: int
    turn: int
    metadata: Metadata


@dataclass(frozen=True, eq=False)
class Group:
    """Messages of one content and type to like clients, which a worker gets at once.

    Attributes:
        number: Its place among the groups that are run together; parts are merged in this order.
        tasks: One for each client, at least one, all of different clients.
        num_clients: Size of the population.
        server_round: 0..R.
        intake: Folds the usable replies into one, or sifts them; None = they are all wanted.
        content: Handle of the content, as `Pool.share` gave it.
        states: Handles of the clients' states, as earlier outcomes gave them; None = none yet.
        mix: Makes records of each client's letters, which its request gets; None = no letters.
        letters: Of each client, if there is a mix.
        payloads: Handles of all payloads that the letters stand for, as earlier outcomes gave them.
        places: Where among them each is, by name and sender.
    """

    number: int
    tasks: tuple[Task, ...]
    num_clients: int
    server_round: int
    intake: Intake = None
    content: Any = None
    states: tuple[Any, ...] = ()
    mix: Mix | None = None
    letters: tuple[tuple[Letter, ...], ...] = ()
    payloads: tuple[Any, ...] = ()
    places: Mapping[tuple[str, int], int] = field(default_factory=dict)


NOTE = "note."
"""What the names of numbers begin with that a client noted beside its metrics."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What came of one task.

    Attributes:
        client_id: Who answered.
        reply: The reply; None if there is none, it is of no use, or it was folded.
        reply_bytes: Size of what was sent to the strategy, or folded.
        kept_bytes: Size of what was kept as a payload.
        multiplications: What the client computed, as the app tells; 0 if it does not.
        metrics: Its scalars; what the client noted beside them as `NOTE` and the name.
        failure: "" or why there is no usable reply.
        raised: Whether the client raised an exception.
        traceback: "" or the exception's.
    """

    client_id: int
    reply: Message | None
    reply_bytes: int = 0
    kept_bytes: int = 0
    multiplications: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    failure: str = ""
    raised: bool = False
    traceback: str = ""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a group.

    Attributes:
        number: The group's.
        answers: One for each of its tasks, in their order.
        states: Handle of each client's state afterwards; None = as it was before.
        kept: Handle of each client's payload; None = nothing was kept.
        part: Content that the usable replies were folded into, if there was a reducer and a reply.
        broken: "" or the traceback of what the strategy's reducer, mix or show raised.
        notes: What the user should know of how the clients' process runs them.
    """

    number: int
    answers: list[Answer]
    states: list[Any]
    kept: list[Any]
    part: RecordDict | None = None
    broken: str = ""
    notes: tuple[str, ...] = ()
