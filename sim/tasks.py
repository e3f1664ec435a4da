"""A group: one content for several clients, run by a worker as a pure function of its arguments."""

import pickle
import traceback
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from typing import Any, Protocol, runtime_checkable

from flwr.app import Context, Message, Metadata, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.folding import Intake, Reducer
from clients.messages import size_bytes
from clients.seeding import Purpose, stream
from sim.processes import seeded_globals
from sim.states import freeze, thaw

Screen = Callable[[Message, Message], str | None]
"""(request, reply) -> reason to reject the reply, or None; e.g. `clients.screening.fault_of`."""


@runtime_checkable
class Serving(Protocol):
    """A ClientApp that takes several messages with one content at once, which it does not change.

    It draws from the global generators only for a network that does, once they are seeded for the
    whole group.
    """

    def serve(
        self, requests: Sequence[Message], contexts: Sequence[Context], device: str
    ) -> Iterator[Message | Exception]:
        """Answer each request in turn, or say by an exception why there is no answer."""
        ...


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
        screen: Tells usable replies from others.
        intake: Folds the usable replies into one, or sifts them; None = they are all wanted.
        content: Handle of the content, as `Pool.share` gave it.
        states: Handles of the clients' states, as earlier outcomes gave them; None = none yet.
    """

    number: int
    tasks: tuple[Task, ...]
    num_clients: int
    server_round: int
    screen: Screen
    intake: Intake = None
    content: Any = None
    states: tuple[Any, ...] = ()


@dataclass(frozen=True, eq=False)
class Answer:
    """What came of one task.

    Attributes:
        client_id: Who answered.
        reply: The reply; None if there is none, it is of no use, or it was folded.
        reply_bytes: Its payload.
        metrics: Its scalars.
        failure: "" or why there is no usable reply.
        raised: Whether the client raised an exception.
        traceback: "" or the exception's.
    """

    client_id: int
    reply: Message | None
    reply_bytes: int = 0
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
        part: Content that the usable replies were folded into, if there was a reducer and a reply.
        broken: "" or the traceback of what the reducer raised.
    """

    number: int
    answers: list[Answer]
    states: list[Any]
    part: RecordDict | None = None
    broken: str = ""


def run_group(
    app: ClientApp,
    group: Group,
    content: bytes,
    states: Sequence[bytes | None],
    seed: int,
    device: str,
) -> Outcome:
    """Run a group of clients.

    Args:
        app: The program of all clients.
        group: What to run; its handles are not looked at.
        content: The requests' content, as `frozen_content` gave it.
        states: The clients' states, frozen; None = none yet.
        seed: The run's seed.
        device: Of this worker, for apps that are `Serving`: "cpu" or one that torch knows.

    Returns:
        What came of it, with frozen states.
    """
    answers: list[Answer] = []
    after: list[bytes | None] = []
    fold = group.intake.fold if isinstance(group.intake, Reducer) else None

    def usable() -> Iterator[RecordDict]:
        served = _served(app, group, content, states, seed, device)
        for task, before, (request, context, item) in zip(group.tasks, states, served, strict=True):
            answer, state = _judged(task, request, item, group), None
            if not answer.failure:
                try:
                    state = _changed(context.state, before)
                except Exception as error:  # a client may leave anything in its state
                    answer = _raised(task, error)
            folded = fold is not None and answer.reply is not None
            answers.append(replace(answer, reply=None) if folded else answer)
            after.append(state)
            if folded and answer.reply is not None:
                yield answer.reply.content

    replies, part, broken = usable(), None, ""
    if fold is not None and (first := next(replies, None)) is not None:
        try:
            part = fold(chain([first], replies))
        except Exception:  # anyone's rule; the run ends, and says which
            broken = traceback.format_exc()
    for _ in replies:  # all of them without a reducer; else what it did not look at
        pass
    return Outcome(group.number, answers, after, part, broken)


def frozen_content(content: RecordDict) -> bytes:
    """Freeze a content for the workers, so that no client can change what the next one receives."""
    return pickle.dumps(content, protocol=5)


def _served(
    app: ClientApp,
    group: Group,
    content: bytes,
    states: Sequence[bytes | None],
    seed: int,
    device: str,
) -> Iterator[tuple[Message, Context, Any]]:
    """Yield (request, context afterwards, what was answered or raised) for each task in turn."""
    shared = pickle.loads(content)
    requests = [_message(shared, task) for task in group.tasks]
    contexts = [_context(*pair, group) for pair in zip(group.tasks, states, strict=True)]
    keys = [
        stream(seed, Purpose.TASK, group.server_round, task.client_id, task.turn)
        for task in group.tasks
    ]
    if isinstance(app, Serving):
        with seeded_globals(keys[0]):
            items = _lasting(app.serve(requests, contexts, device))
            yield from zip(requests, contexts, items, strict=False)  # an error lasts for ever
        return
    for task, request, context, key in zip(group.tasks, requests, contexts, keys, strict=True):
        own = _message(pickle.loads(content), task)  # its own, as anyone's client may change it
        try:
            with seeded_globals(key):
                item: Any = app(own, context)
        # Anyone's code, and one client must not end the run, not even by sys.exit.
        except (Exception, SystemExit) as error:
            item = error
        yield request, context, item


def _lasting(items: Iterator[Message | Exception]) -> Iterator[Any]:
    """Yield the items, and if they break off by an exception, that one for ever after."""
    try:
        yield from items
    except (Exception, SystemExit) as error:
        yield from repeat(error)


def _message(content: RecordDict, task: Task) -> Message:
    # Flower keeps `metadata=` for its own engines; ours is one, and a test fails if it goes.
    return Message(content, metadata=copy(task.metadata))  # type: ignore[call-overload,no-any-return]


def _context(task: Task, state: bytes | None, group: Group) -> Context:
    return Context(
        run_id=task.metadata.run_id,
        node_id=task.metadata.dst_node_id,
        node_config={"partition-id": task.client_id, "num-partitions": group.num_clients},
        state=RecordDict() if state is None else thaw(state),
        run_config={},
    )


def _judged(task: Task, request: Message, item: Any, group: Group) -> Answer:
    """Say what a client's answer is worth."""
    if isinstance(item, BaseException):
        return _raised(task, item)
    if not isinstance(item, Message):
        what = type(item).__name__
        return _raised(task, TypeError(f"the ClientApp returned {what}, expected a Message"))
    if item.has_error():
        failure = item.error.reason or f"error {item.error.code}"
        return Answer(task.client_id, None, failure=failure)
    failure = group.screen(request, item) or ""
    fault = None if group.intake is None else group.intake.fault
    if fault is not None and not failure:
        failure = fault(request, item) or ""
    return Answer(
        client_id=task.client_id,
        reply=None if failure else item,
        reply_bytes=size_bytes(item.content),
        metrics={} if failure else scalars_of(item.content),
        failure=failure,
    )


def _raised(task: Task, error: BaseException) -> Answer:
    first_line = (str(error).strip().splitlines() or [""])[0]
    reason = f"{type(error).__name__}: {first_line}".removesuffix(": ")
    trace = "".join(traceback.format_exception(error))
    return Answer(task.client_id, None, failure=reason, raised=True, traceback=trace)


def _changed(state: RecordDict, before: bytes | None) -> bytes | None:
    """Freeze a state; None if it is as it was."""
    if before is None and not state:
        return None
    after = freeze(state)
    return None if after == before else after


def scalars_of(content: RecordDict) -> dict[str, float]:
    """Collect all single numbers of a reply's metric records."""
    # Not content.metric_records: it refers to the content and back, and megabytes of answers would
    # wait for the garbage collector.
    return {
        key: float(value)
        for record in content.values()
        if isinstance(record, MetricRecord)
        for key, value in record.items()
        if isinstance(value, int | float)
    }
