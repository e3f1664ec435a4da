"""Running a group: one content for several clients, a pure function of its arguments."""

import pickle
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy, deepcopy
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.handlers.reply_faults import fault_of
from clients.messages.accumulator import Keep, Reducer, Sieve
from clients.messages.sizes import size_bytes
from clients.seeding import Purpose, stream
from sim.workers.process_setup import seeded_globals
from sim.workers.reply_validation import judged, raised
from sim.workers.state_serialization import freeze, thaw
from sim.workers.tasks import Answer, Group, Outcome, Program, Task
from sim.workers.user_interrupts import heard_signals


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

    def multiplications(self, request: Message, context: Context) -> float:
        """Count what a client computed for a request, >= 0; a pure function of both."""
        ...


@runtime_checkable
class Encoding(Protocol):
    """A ClientApp whose clients encode what they send."""

    def decode(self, request: Message, reply: Message) -> str | None:
        """Decode a reply in place, whoever made it; say why that cannot be done, or None."""
        ...


@runtime_checkable
class Noting(Protocol):
    """A ClientApp that tells how it runs its clients, where that is not as its user may expect."""

    def run_notes(self) -> Iterable[str]:
        """Return all that there has been to say in this process, each sentence once."""
        ...


def run_group(
    program: Program,
    group: Group,
    content: bytes,
    states: Sequence[bytes | None],
    payloads: Sequence[bytes],
    seed: int,
    device: str,
) -> Outcome:
    """Run a group of clients.

    Args:
        program: Of all clients.
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
    with heard_signals() as again:
        served = _served(program.app, group, contents, states, seed, device, again)
        outcome = _outcome(program, group, states, served, again)
        again()
    notes = tuple(program.app.run_notes()) if isinstance(program.app, Noting) else ()
    return replace(outcome, notes=notes)


Served = Iterator[tuple[Message, Context, Any]]
"""Of each task in turn: its request, the context afterwards, what was answered or raised."""


def _outcome(
    program: Program,
    group: Group,
    states: Sequence[bytes | None],
    served: Served,
    again: Callable[[], None],
) -> Outcome:
    """Judge each answer as it comes; add it up, sift or keep it."""
    answers: list[Answer] = []
    after: list[bytes | None] = []
    kept: list[bytes | None] = []
    broken: list[str] = []
    intake, sums = group.intake, None
    count = program.app.multiplications if isinstance(program.app, Counting) else _nothing
    kind = group.tasks[0].metadata.message_type
    screen = partial(fault_of, handler=program.handlers.get(kind))
    decode = program.app.decode if isinstance(program.app, Encoding) else None
    for task, before, (request, context, item) in zip(group.tasks, states, served, strict=True):
        answer, state, payload = judged(task, request, item, intake, screen, decode), None, None
        if not answer.failure:
            try:
                state = _changed(context.state, before)
            except BaseException as error:  # a client may leave anything in its state
                answer = raised(task, error)
        again()
        if answer.reply is not None and intake is not None and not broken:
            try:
                if isinstance(intake, Reducer):
                    sums = intake.accumulator() if sums is None else sums
                    sums.add(answer.reply.content)
                else:
                    answer, payload = _shown(answer, intake)
            except Exception:
                broken.append(traceback.format_exc())
        left = None if broken or isinstance(intake, Reducer) else answer.reply
        answers.append(replace(answer, reply=left, multiplications=count(request, context)))
        after.append(state)
        kept.append(payload)
    part = None
    if sums is not None and not broken:
        try:
            part = sums.part()
        except Exception:
            broken.append(traceback.format_exc())
    return Outcome(group.number, answers, after, kept, part, "".join(broken))


def _nothing(request: Message, context: Context) -> float:
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
    if intake.show is None:
        return answer, payload
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
    again: Callable[[], None],
) -> Served:
    """Let each task be answered; `again` raises what the process's signal handlers raised."""
    shared = pickle.loads(contents[0]) if isinstance(contents[0], bytes) else RecordDict()
    requests = [
        _message(shared if isinstance(content, bytes) else content, task)
        for task, content in zip(group.tasks, contents, strict=True)
    ]
    keys = [
        stream(seed, Purpose.TASK, group.server_round, task.client_id, task.turn)
        for task in group.tasks
    ]
    if isinstance(app, Serving):
        yield from _served_together(app, group, requests, states, keys, device, again)
        return
    everything = zip(group.tasks, contents, requests, states, keys, strict=True)
    for task, content, request, state, key in everything:
        # Its own, as anyone's client may change it.
        copied = pickle.loads(content) if isinstance(content, bytes) else deepcopy(content)
        own, context = _message(copied, task), _context(task, state, group)
        try:
            with seeded_globals(key):
                item: Any = app(own, context)
        except BaseException as error:  # anyone's code, and one client must not end the run
            item = error
        again()
        yield request, context, item


def _served_together(
    app: Serving,
    group: Group,
    requests: Sequence[Message],
    states: Sequence[bytes | None],
    keys: Sequence[np.random.SeedSequence],
    device: str,
    again: Callable[[], None],
) -> Served:
    """Serve a group at once; if that breaks off, whoever is left one by one: one of them is odd."""
    contexts = [_context(*pair, group) for pair in zip(group.tasks, states, strict=True)]
    items, place = _items(app, requests, contexts, device), 0
    with seeded_globals(keys[0]):
        while place < len(requests):
            item, off = _next(items, again)
            if off and len(requests) > 1:
                break
            yield requests[place], contexts[place], item
            place += 1
    left = list(zip(group.tasks, states, requests, keys, strict=True))[place:]
    for task, state, request, key in left:
        context = _context(task, state, group)
        with seeded_globals(key):
            item, _ = _next(_items(app, [request], [context], device), again)
        yield request, context, item


def _items(
    app: Serving, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Iterator[Any]:
    yield from app.serve(requests, contexts, device)


def _next(items: Iterator[Any], again: Callable[[], None]) -> tuple[Any, bool]:
    """Return the next answer, or what was raised in its place; and whether it was."""
    try:
        item, off = next(items), False
    except StopIteration:
        item, off = RuntimeError("the ClientApp gives fewer answers than it was asked for"), True
    except BaseException as error:  # anyone's network, and one client must not end the run
        item, off = error, True
    again()
    return item, off


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


def _changed(state: RecordDict, before: bytes | None) -> bytes | None:
    """Freeze a state; None if it is as it was."""
    if before is None and not state:
        return None
    after = freeze(state)
    return None if after == before else after
