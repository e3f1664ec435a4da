"""Running a group: one content for several clients, a pure function of its arguments."""

import pickle
import traceback
from collections.abc import Iterator, Sequence
from copy import copy, deepcopy
from dataclasses import replace
from itertools import chain, repeat
from typing import Any, Protocol, runtime_checkable

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.folding import Keep, Reducer, Sieve
from clients.messages import size_bytes
from clients.seeding import Purpose, stream
from sim.processes import seeded_globals
from sim.states import freeze, thaw
from sim.tasks import Answer, Group, Outcome, Task


@runtime_checkable
class Serving(Protocol):
    """A ClientApp that takes several messages at once, and does not change their contents.

    It draws from the global generators only for a network that does, once they are seeded for the
    whole group.
    """

    def serve(
        self, requests: Sequence[Message], contexts: Sequence[Context], device: str
    ) -> Iterator[Message | Exception]:
        """Answer each request in turn, or say by an exception why there is no answer."""
        ...


@runtime_checkable
class Counting(Protocol):
    """A ClientApp that tells how much its clients compute."""

    def multiplications(self, request: Message) -> float:
        """Count what a client computes for a request, >= 0; a pure function of it."""
        ...


def run_group(
    app: ClientApp,
    group: Group,
    content: bytes,
    states: Sequence[bytes | None],
    payloads: Sequence[bytes],
    seed: int,
    device: str,
) -> Outcome:
    """Run a group of clients.

    Args:
        app: The program of all clients.
        group: What to run; its handles are not looked at.
        content: The requests' content, as `frozen_content` gave it.
        states: The clients' states, frozen; None = none yet.
        payloads: Frozen payloads, at their places.
        seed: The run's seed.
        device: Of this worker, for apps that are `Serving`: "cpu" or one that torch knows.

    Returns:
        What came of it, with frozen states.
    """
    try:
        contents = _contents(group, content, payloads)
    except Exception:  # anyone's rule; the run ends, and says which
        return Outcome(group.number, [], [], [], broken=traceback.format_exc())
    answers: list[Answer] = []
    after: list[bytes | None] = []
    kept: list[bytes | None] = []
    broken: list[str] = []
    intake = group.intake
    count = app.multiplications if isinstance(app, Counting) else _nothing

    def usable() -> Iterator[RecordDict]:
        served = _served(app, group, contents, states, seed, device)
        for task, before, (request, context, item) in zip(group.tasks, states, served, strict=True):
            answer, state, payload = _judged(task, request, item, group), None, None
            if not answer.failure:
                try:
                    state = _changed(context.state, before)
                except Exception as error:  # a client may leave anything in its state
                    answer = _raised(task, error)
            reply = None if answer.reply is None else answer.reply.content
            if reply is not None and isinstance(intake, Keep | Sieve):
                try:
                    answer, payload = _shown(answer, intake)
                except Exception:
                    broken.append(traceback.format_exc())
            folded = isinstance(intake, Reducer)
            left = None if folded else answer.reply
            answers.append(replace(answer, reply=left, multiplications=count(request)))
            after.append(state)
            kept.append(payload)
            if folded and reply is not None:
                yield reply

    replies, part = usable(), None
    if isinstance(intake, Reducer) and (first := next(replies, None)) is not None:
        try:
            part = intake.fold(chain([first], replies))
        except Exception:
            broken.append(traceback.format_exc())
    for _ in replies:  # all of them without a reducer; else what it did not look at
        pass
    return Outcome(group.number, answers, after, kept, part, "".join(broken[:1]))


def _nothing(request: Message) -> float:
    return 0.0


def _contents(group: Group, content: bytes, payloads: Sequence[bytes]) -> list[bytes | RecordDict]:
    """Return each task's content: frozen, where all have the same, or with its letters mixed."""
    if group.mix is None:
        return [content] * len(group.tasks)
    contents: list[bytes | RecordDict] = []
    for task, letters in zip(group.tasks, group.letters, strict=True):
        read = [(each, thaw(payloads[group.places[each.name, each.sender]])) for each in letters]
        contents.append(RecordDict({**pickle.loads(content), **group.mix(task.client_id, read)}))
    return contents


def _shown(answer: Answer, intake: Keep | Sieve) -> tuple[Answer, bytes | None]:
    """Reduce a reply to what the strategy is to see; freeze the whole of it if it is kept."""
    assert answer.reply is not None, "there is a reply"
    payload, size = None, 0
    if isinstance(intake, Keep):
        payload, size = freeze(answer.reply.content), answer.reply_bytes
    if intake.show is not None:
        answer.reply.content = intake.show(answer.reply.content)
    sent = size_bytes(answer.reply.content)
    return replace(answer, reply_bytes=sent, kept_bytes=size), payload


def frozen_content(content: RecordDict) -> bytes:
    """Freeze a content for the workers, so that no client can change what the next one receives."""
    return pickle.dumps(content, protocol=5)


def _served(
    app: ClientApp,
    group: Group,
    contents: Sequence[bytes | RecordDict],
    states: Sequence[bytes | None],
    seed: int,
    device: str,
) -> Iterator[tuple[Message, Context, Any]]:
    """Yield (request, context afterwards, what was answered or raised) for each task in turn."""
    shared = pickle.loads(contents[0]) if isinstance(contents[0], bytes) else RecordDict()
    requests = [
        _message(shared if isinstance(content, bytes) else content, task)
        for task, content in zip(group.tasks, contents, strict=True)
    ]
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
    everything = zip(group.tasks, contents, requests, contexts, keys, strict=True)
    for task, content, request, context, key in everything:
        # Its own, as anyone's client may change it.
        copied = pickle.loads(content) if isinstance(content, bytes) else deepcopy(content)
        own = _message(copied, task)
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
        try:
            failure = fault(request, item) or ""
        except Exception as error:  # a reply can hold anything, and must not end the run
            failure = f"cannot be read: {type(error).__name__}: {error}"
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
