"""Where tasks run: `InlinePool`, the reference; `sim/ray_pool.py` must give the same bits."""

import pickle
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from flwr.app import RecordDict
from flwr.clientapp import ClientApp

from sim.tasks import Outcome, Task, pin_threads, run_task


class Pool(Protocol):
    """A set of processes that run one ClientApp for any client."""

    def share(self, content: RecordDict) -> Any:
        """Make a content available to every task of the round, once; return its handle."""
        ...

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Run tasks of different clients; yield each outcome as it comes, in any order."""
        ...

    def state_of(self, handle: Any) -> RecordDict:
        """Fetch a client's state from its handle."""
        ...

    def close(self) -> None:
        """Free what the pool holds. It cannot be used afterwards."""
        ...


class InlinePool:
    """Runs every task in this process, one after the other: for debugging, and the reference."""

    def __init__(self, app: ClientApp, seed: int, threads: int = 1) -> None:
        """Prepare the pool.

        Args:
            app: The program of all clients.
            seed: The run's seed.
            threads: Threads of this process, >= 1; part of the bits.
        """
        self._app = app
        self._seed = seed
        pin_threads(threads)

    def share(self, content: RecordDict) -> bytes:
        """Freeze a content, so that no client can change what the next one receives."""
        return pickle.dumps(content)

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Run the tasks in the order given; see `Pool.run`."""
        for task in tasks:
            content = pickle.loads(task.content)
            state = RecordDict() if task.state is None else pickle.loads(task.state)
            reply, raised, after = run_task(self._app, task, content, state, self._seed)
            kept = task.state if raised else pickle.dumps(after)
            yield Outcome(task.client_id, reply, raised, kept)

    def state_of(self, handle: bytes) -> RecordDict:
        """Thaw a client's state."""
        state: RecordDict = RecordDict() if handle is None else pickle.loads(handle)
        return state

    def close(self) -> None:
        """Nothing to free."""
