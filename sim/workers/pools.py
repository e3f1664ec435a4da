"""Pools that run groups: `InlinePool`, the reference; `ray_pool.py` must give the same bits."""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol

from flwr.app import RecordDict
from flwr.clientapp import ClientApp

from clients.handlers.base import Handler
from clients.mutual.lockstep import TrainPeers, train_peers
from clients.training.loop import Trainer
from sim.workers.group_recovery import joined, singles
from sim.workers.process_setup import keep_memory, pin_threads, require_device
from sim.workers.quarantine import Suspects, timed_out
from sim.workers.runner import frozen_content, run_group
from sim.workers.state_store import StateStore
from sim.workers.tasks import Group, Outcome, Program, program_of
from sim.workers.time_limit import require_timer, within


class Pool(Protocol):
    """A set of processes that run one ClientApp for any client.

    Attributes:
        concurrent: Whether this process can compute something else while groups run.
        handlers: Of the messages that are known, by type.
    """

    concurrent: bool
    handlers: Mapping[str, Handler]

    def load(self, app: ClientApp, handlers: Iterable[Handler] = ()) -> None:
        """Give every process the program of all clients; once, before anything is run.

        Args:
            app: The program.
            handlers: As in `sim.workers.tasks.program_of`.
        """
        ...

    def share(self, content: RecordDict) -> Any:
        """Make a content available to every group of the round, once; return its handle."""
        ...

    def run(self, groups: Iterable[Group]) -> Iterator[Outcome]:
        """Run groups of different clients; yield each outcome as it comes, in any order."""
        ...

    def states(self, folder: Path) -> MutableMapping[int, Any]:
        """Return an empty place for the handles of states; `folder` is for what memory lacks."""
        ...

    def frozen(self, handle: Any) -> bytes | None:
        """Fetch a frozen state, or payload, from its handle."""
        ...

    def keep(self, frozen: bytes) -> Any:
        """Take in a frozen state, or payload, that was not made here; return its handle."""
        ...

    def train_peers(self, warn: Callable[[str], None]) -> TrainPeers:
        """Return what trains groups of peers where this pool computes.

        Args:
            warn: Called when peers were lost and learn again what they had.

        Returns:
            A function like `clients.mutual.lockstep.train_peers`, with `device` bound.
        """
        ...

    def share_training(self, train: Trainer, workers: int, warn: Callable[[str], None]) -> Trainer:
        """Return a trainer that shares each batch out to several processes.

        Args:
            train: `clients.training.loop.train` with its numbers bound.
            workers: How many, >= 1.
            warn: As in `train_peers`.

        Returns:
            The trainer.

        Raises:
            ValueError: This pool has no such processes, or the trainer is somebody else's.
        """
        ...

    def close(self) -> None:
        """Free what the pool holds. It cannot be used afterwards."""
        ...


class InlinePool:
    """Runs every group in this process, one after the other: for debugging, and the reference."""

    concurrent = False

    def __init__(
        self,
        seed: int,
        threads: Annotated[int, ">= 1"] = 1,
        device: str = "cpu",
        state_memory_bytes: Annotated[int, ">= 0"] = 2**30,
        client_timeout_s: Annotated[float, "> 0, or null for never"] | None = None,
    ) -> None:
        """Prepare the pool.

        Args:
            seed: The run's seed.
            threads: Threads of this process, >= 1; part of the bits.
            device: Where our clients compute, "cpu" or one that torch knows.
            state_memory_bytes: How many bytes of idle clients' states stay in memory, >= 0; the
                others go to files.
            client_timeout_s: How long a client may take for a message, > 0, by the clock on the
                wall: a safety net against those that hang, other than in one call of a library.
                None = for ever.

        Raises:
            ValueError: There is no such device, or no timer in this thread.
        """
        require_device("sim.device", device)
        if client_timeout_s is not None:
            require_timer("sim.client_timeout_s")
        self._program: Program | None = None
        self.handlers: Mapping[str, Handler] = {}
        self._store: StateStore | None = None
        self._seed = seed
        self._device = device
        self._state_memory_bytes = state_memory_bytes
        self._client_timeout_s = client_timeout_s
        self._suspects = Suspects()
        pin_threads(threads)
        keep_memory()

    def load(self, app: ClientApp, handlers: Iterable[Handler] = ()) -> None:
        """Keep the program. Nobody is suspected any more."""
        self._program = program_of(app, handlers)
        self.handlers = self._program.handlers
        self._suspects = Suspects()

    def share(self, content: RecordDict) -> bytes:
        """Freeze a content."""
        return frozen_content(content)

    def states(self, folder: Path) -> StateStore:
        """Return a store that spills to files in `folder`."""
        self._store = StateStore(folder, self._state_memory_bytes)
        return self._store

    def run(self, groups: Iterable[Group]) -> Iterator[Outcome]:
        """Run the groups in the order given; see `Pool.run`."""
        for group in groups:
            cut = self._suspects.cut(group)
            yield self._run(group) if len(cut) == 1 else joined(group, [*map(self._run, cut)])

    def frozen(self, handle: bytes | None) -> bytes | None:
        """Return the handle: here it is the state."""
        return handle

    def keep(self, frozen: bytes) -> bytes:
        """Return the state: here it is the handle."""
        return frozen

    def train_peers(self, warn: Callable[[str], None]) -> TrainPeers:
        """Return what trains groups in this process: nobody is lost here."""
        return partial(train_peers, device=self._device)

    def share_training(self, train: Trainer, workers: int, warn: Callable[[str], None]) -> Trainer:
        """Refuse: there is one process."""
        raise ValueError(f"student_workers={workers}: sim=inline has one process, set sim=ray")

    def close(self) -> None:
        """Forget the clients' states, and remove the files that they were spilled to."""
        if self._store is not None:
            self._store.close()

    def _run(self, group: Group) -> Outcome:
        """Run a group; if it takes too long, its clients one by one."""
        assert self._program is not None, "load the program first"
        arguments = group.content, group.states, group.payloads, self._seed, self._device
        run = partial(run_group, self._program, group, *arguments)
        if (seconds := self._client_timeout_s) is None:
            return run()
        if (outcome := within(seconds * len(group.tasks), run)) is not None:
            return outcome
        if len(group.tasks) == 1:
            self._suspects.run_alone(group)
            return timed_out(group, seconds)
        outcomes = [self._run(one) for one in singles(group)]
        self._suspects.judge(group)
        return joined(group, outcomes)
