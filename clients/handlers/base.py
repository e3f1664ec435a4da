"""The handler: all that is to be said of one type of message, from known keys to its faults.

A strategy names its own, `handlers = (Handler("train.prototypes", answer, ...),)`, and
`clients.app.SimulatedApp` registers them, on our engine and under Flower's. There is no other way
in which a strategy tells clients what to do.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from flwr.app import Context, Message, RecordDict

from clients.messages.requests import CONFIG
from clients.population.clients import SimulatedClients

CATEGORIES = ("train", "query", "evaluate")
SERVER_ROUND = "server-round"

Replies = Iterator[Message | Exception]
"""For each request in turn the reply, or what kept the client from one."""

Answering = Callable[[SimulatedClients, Sequence[Message], Sequence[Context], str], Replies]
"""(clients, requests, contexts, device) -> answers. Requests are of one content, but for what
neighbours sent, and to clients of one architecture; a client's state is its context's."""


@dataclass(frozen=True, eq=False)
class Handler:
    """What clients do with one type of message.

    Attributes:
        kind: Flower's message type: "train", "query" or "evaluate", alone or with an action, as in
            "train.prototypes".
        answer: What clients do; `each` makes it of a function of one client. All of a handler is
            sent to workers: functions of modules, `functools.partial`s of them and objects, but no
            functions within functions.
        keys: What is read of a request's record "config"; any other key is a failed reply.
        records: Names of the records that are read besides; any other is a failed reply too.
        replies: Type of each record that a reply may have, by name; None = any.
        limits: Largest size of the numbers in a reply's record, by name; that of parameters in all
            others.
        fault: (request, reply) -> why the reply is of no use, or None. What is odd in any reply has
            been looked for by then (`clients.handlers.reply_faults`).
        multiplications: (clients, client id, content of the request) -> how many the client
            computes, >= 0, for the virtual clock; None = none that matter.
        measurement: Whether nobody learns from the answers: such requests have turns of their own,
            so that who watches changes nothing, no quorum, and no simulated time.
        timed: Content of a request -> whether it takes simulated time; None = all do but
            measurements and what is evaluated.
    """

    kind: str
    answer: Answering
    keys: tuple[str, ...] = (SERVER_ROUND,)
    records: tuple[str, ...] = ()
    replies: Mapping[str, type] | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    fault: Callable[[Message, Message], str | None] | None = None
    multiplications: Callable[[SimulatedClients, int, RecordDict], float] | None = None
    measurement: bool = False
    timed: Callable[[RecordDict], bool] | None = None

    def __post_init__(self) -> None:
        """Refuse a type of message that Flower does not know.

        Raises:
            ValueError: Names it, or says what is no tuple of names.
        """
        for name in ("keys", "records"):
            if isinstance(value := getattr(self, name), str):  # ("lr") is no tuple
                raise ValueError(f"handler of '{self.kind}': {name} is {value!r}, expected a tuple")
        category, dot, action = self.kind.partition(".")
        if category not in CATEGORIES or (dot and not action.isidentifier()):
            raise ValueError(
                f"handler of '{self.kind}': expected {', '.join(CATEGORIES)}, alone or with an "
                "action after a dot, such as train.prototypes"
            )

    def takes_time(self, content: RecordDict) -> bool:
        """Tell whether a request takes simulated time."""
        if self.measurement:
            return False
        if self.timed is not None:
            return self.timed(content)
        return not is_evaluation(self.kind)


def is_evaluation(kind: str) -> bool:
    """Tell whether messages of a type evaluate."""
    return kind.partition(".")[0] == "evaluate"


def each(answer: Callable[[SimulatedClients, Message, Context, str], RecordDict]) -> Answering:
    """Make what answers for several clients of what answers for one.

    Args:
        answer: (clients, request, context, device) -> content of the reply. What it raises is the
            client's failure, and no other's.

    Returns:
        It, client by client.
    """
    return partial(_one_by_one, answer)


def by_kind(handlers: Iterable[Handler]) -> dict[str, Handler]:
    """Order handlers by the type of message that they answer.

    Args:
        handlers: At most one for each type; the same one may come again.

    Returns:
        Handlers by `Handler.kind`.

    Raises:
        ValueError: Two answer one type, or one is no handler; names it.
    """
    named = dict[str, Handler]()
    for handler in handlers:
        if not isinstance(handler, Handler):
            raise ValueError(
                f"strategy.handlers: {type(handler).__name__} {handler!r}, expected a "
                "clients.handlers.base.Handler"
            )
        if named.setdefault(handler.kind, handler) is not handler:
            raise ValueError(
                f"strategy.handlers: two answer '{handler.kind}' messages, expected one"
            )
    return named


def unread(handler: Handler, content: RecordDict) -> str | None:
    """Look for what a client would overlook in a request.

    A strategy that sends a learning rate, a clipping norm or a control variate counts on its being
    used.

    Args:
        handler: Of the request's type.
        content: Of the request.

    Returns:
        A line that names the first such key or record and what is understood; None if all is read.
    """
    for name, record in content.items():
        if name == CONFIG:
            for key in record:
                if key not in handler.keys:
                    return _line("key", str(key), handler.kind, handler.keys)
        elif name not in handler.records:
            return _line("record", name, handler.kind, (*handler.records, CONFIG))
    return None


def missing(handler: Handler, content: RecordDict, error: KeyError) -> Exception:
    """Say which record a request lacks, where a client looked for one that may be in it.

    Args:
        handler: Of the request's type.
        content: Of the request.
        error: What the client raised.

    Returns:
        A ValueError that names the record; the error itself if it is of something else.
    """
    name = error.args[0] if error.args else None
    if name not in handler.records or name in content:
        return error
    return ValueError(f"a '{handler.kind}' request needs the record '{name}', and this has none")


# --- steps ---


def _one_by_one(
    answer: Callable[[SimulatedClients, Message, Context, str], RecordDict],
    clients: SimulatedClients,
    requests: Sequence[Message],
    contexts: Sequence[Context],
    device: str,
) -> Replies:
    for request, context in zip(requests, contexts, strict=True):
        try:
            yield Message(answer(clients, request, context, device), reply_to=request)
        except Exception as error:  # the client's, not the group's
            yield error


def _line(what: str, name: str, kind: str, known: tuple[str, ...]) -> str:
    return (
        f"{what} '{name}' of a '{kind}' request is read by none of our clients, and would have "
        f"done nothing; understood: {', '.join(known)}"
    )
