"""A task: one message to one client, run as a pure function of its arguments."""

import random
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.app import Context, Message, Metadata, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity
from threadpoolctl import threadpool_limits

from clients.seeding import Purpose, stream


@dataclass(frozen=True, eq=False)
class Task:
    """One message to one client.

    Attributes:
        client_id: Who is to answer.
        num_clients: Size of the population.
        turn: How many messages this client had in this round before this one.
        server_round: 0..R.
        metadata: The message's, content aside.
        content: Handle of the content, as `Pool.share` gave it.
        state: Handle of the client's state, as an earlier outcome gave it; None = none yet.
    """

    client_id: int
    num_clients: int
    turn: int
    server_round: int
    metadata: Metadata
    content: Any
    state: Any


@dataclass(frozen=True, eq=False)
class Raised:
    """What a client raised: in one line, and with its traceback."""

    reason: str
    traceback: str


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a task: a reply, or what the client raised.

    Attributes:
        client_id: Who answered.
        reply: The reply message, or None.
        raised: What was raised, or None.
        state: Handle of the client's state afterwards; as before the task if it failed.
    """

    client_id: int
    reply: Message | None
    raised: Raised | None
    state: Any


def pin_threads(threads: int) -> None:
    """Fix the number of threads of torch and of the BLAS behind numpy in this process.

    The order in which a sum is split over threads is part of a result's bits, and both libraries
    otherwise take the number of cores they find.

    Args:
        threads: >= 1.
    """
    torch.set_num_threads(threads)
    threadpool_limits(limits=threads)


def run_task(
    app: ClientApp, task: Task, content: RecordDict, state: RecordDict, seed: int
) -> tuple[Message | None, Raised | None, RecordDict]:
    """Run a client on one message.

    Global generators are seeded for this task and restored after it, so a ClientApp that draws
    from them (one written against Flower alone, say) is as reproducible as ours, which do not.

    Args:
        app: The program of all clients.
        task: What to run; its handles are not looked at.
        content: The request's content; the client may change it.
        state: The client's state; the client may change it.
        seed: The run's seed.

    Returns:
        The reply or None, what was raised or None, and the state afterwards.
    """
    # Flower keeps `metadata=` for its own engines; ours is one, and a test fails if it goes.
    request = Message(content, metadata=copy(task.metadata))  # type: ignore[call-overload]
    context = Context(
        run_id=task.metadata.run_id,
        node_id=task.metadata.dst_node_id,
        node_config={"partition-id": task.client_id, "num-partitions": task.num_clients},
        state=state,
        run_config={},
    )
    key = stream(seed, Purpose.TASK, task.server_round, task.client_id, task.turn)
    try:
        with seeded_globals(key):
            reply: Any = app(request, context)
        if not isinstance(reply, Message):
            raise TypeError(f"the ClientApp returned {type(reply).__name__}, expected a Message")
        return reply, None, context.state
    # A client may run anyone's code, and one client must not end the run, not even by sys.exit.
    except (Exception, SystemExit) as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        reason = f"{type(error).__name__}: {first_line}".removesuffix(": ")
        return None, Raised(reason, traceback.format_exc()), state


def assume_task_identity(run_id: int) -> None:
    """Let this process build Flower messages outside a Flower run.

    flwr 1.41 refuses a `Message` in a process without a task identity. Flower's own legacy
    simulation sets these three attributes likewise; `tests/test_grid.py` fails if that changes.

    Args:
        run_id: Put into every message's metadata.
    """
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = 1  # Flower's SUPERLINK_NODE_ID: the server


@contextmanager
def seeded_globals(key: np.random.SeedSequence) -> Iterator[None]:
    """Seed Python's, numpy's and torch's global generators inside the block, then restore them.

    Args:
        key: The stream to seed them from.

    Yields:
        Nothing.
    """
    python, legacy = random.getstate(), np.random.get_state()
    words = key.generate_state(3, np.uint64)
    random.seed(int(words[0]))
    np.random.seed(words[1:2].view(np.uint32))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(words[2] >> np.uint64(1)))
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
