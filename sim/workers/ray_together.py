"""Functions that several workers run together, talking to each other, until one is lost."""

import math
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

import ray
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from clients.mutual.lockstep import NoLink
from sim.workers.ray_cluster import LOOK_EVERY_S
from sim.workers.ray_deaths import GONE, cause_of, ended_by
from sim.workers.ray_process_group import LinkLost, Meeting, TorchLink

RETRIES = 3
"""How often what was lost is run again."""

START_S = 60.0
"""How long new workers may take to start: 5 s where nothing else runs. The time limits of those who
wait for them inside a meeting begin only then."""

GRACE_S = 5.0
"""How long the others may take to notice that one is gone, beyond their own time limit."""


class WorkersLost(RuntimeError):
    """Workers could not be kept alive; says what they were doing."""


class Workers(Protocol):
    """What is needed of a pool: processes, all of the same kind, that stay."""

    def size(self) -> int:
        """Return how many there are."""
        ...

    def gather(self, size: int, timeout_s: float) -> None:
        """Wait for so many to be up, but no longer than the time limit; they are ranks 0, 1, ..."""
        ...

    def call(self, rank: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """Start a function, given the arguments and `device`, in one; return Ray's reference."""
        ...

    def replace(self, rank: int) -> None:
        """Put a new one where one was lost, or hangs."""
        ...

    def look(self) -> None:
        """Raise PoolLost if what they run on has ended: it would be asked in vain for 60 s."""
        ...

    def host(self) -> str:
        """Return the address under which they reach this process."""
        ...

    def own_gpus(self) -> bool:
        """Tell whether each has a whole GPU."""
        ...


class Together:
    """Runs functions in several workers at once; each is given a link to the others.

    The functions must be pure: where a worker is lost they are all run again.
    """

    def __init__(self, workers: Workers, timeout_s: float, warn: Callable[[str], None]) -> None:
        """Use a pool's workers.

        Args:
            workers: They do nothing else meanwhile.
            timeout_s: How long a process waits for another one before it gives up, > 0.
            warn: Called when a worker was lost and all is run again.

        Raises:
            ValueError: The time is out of range.
        """
        if not timeout_s > 0:
            raise ValueError(f"sim.peer_timeout_s={timeout_s}: expected > 0")
        self.workers = workers
        self._timeout_s = timeout_s
        self._warn = warn
        self._store: TCPStore | None = None
        self._meetings = 0
        self._put: dict[int, tuple[Any, Any]] = {}

    def put(self, shared: Any) -> Any:
        """Put something large where all workers see it, once; the latest is remembered."""
        if id(shared) not in self._put:
            self._put = {id(shared): (shared, ray.put(shared))}
        return self._put[id(shared)][1]

    def run(
        self,
        size: int,
        function: Callable[..., Any],
        *arguments: Any,
        what: Callable[[set[int]], str],
    ) -> list[Any]:
        """Run a function in the first workers.

        Args:
            size: How many.
            function: Given a link, the arguments, and `device`.
            *arguments: The same for all; references are resolved.
            what: Ranks -> what is lost with them, for messages.

        Returns:
            What each returned, by rank.

        Raises:
            WorkersLost: However often it was tried, a worker was lost.
            PoolLost: What they run on has ended, or has no room left.
            Exception: What the function raised.
        """
        for left in range(RETRIES, -1, -1):
            results, lost = self._attempt(size, function, arguments)
            if not lost:
                return results
            story = f"{what(set(lost))}: {'; '.join(sorted(set(lost.values())))}"
            if left:
                self._warn(f"{story}; it is run again from the last commit")
        raise WorkersLost(
            f"{story}, {RETRIES + 1} times in a row; a worker waits for another one for "
            f"sim.peer_timeout_s={self._timeout_s:g} seconds"
        )

    def _attempt(
        self, size: int, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> tuple[list[Any], dict[int, str]]:
        """Try once; return the results, or which ranks are lost, and why."""
        self.workers.gather(size, START_S)
        meeting = self._meet(size)
        running = {
            self.workers.call(rank, _linked, function, meeting, rank, *arguments): rank
            for rank in range(size)
        }
        results: dict[int, Any] = {}
        lost: dict[int, str] = {}
        unheard: dict[int, str] = {}
        guilty: Exception | None = None
        deadline: float | None = None
        while running:
            left = math.inf if deadline is None else max(0.0, deadline - time.monotonic())
            wait = min(left, LOOK_EVERY_S)
            if not (done := ray.wait(list(running), num_returns=1, timeout=wait)[0]):
                self.workers.look()
                if left > wait:
                    continue
                # They hang: there is no other way to stop them.
                lost |= dict.fromkeys(running.values(), "its worker hangs")
                break
            rank = running.pop(done[0])
            try:
                results[rank] = ray.get(done[0])
                continue
            except ray.exceptions.RayTaskError as error:
                cause = error.cause if isinstance(error.cause, Exception) else error
                if isinstance(cause, LinkLost):
                    unheard[rank] = str(cause)
                else:
                    guilty = guilty or cause
            except GONE as death:
                self.workers.look()
                lost[rank] = f"its worker died ({cause_of(death)})"
            except ray.exceptions.RayError as error:  # a full store or disk: no worker's doing
                raise ended_by(error) from error
            deadline = deadline or time.monotonic() + self._timeout_s + GRACE_S
        for rank in lost:
            self.workers.replace(rank)
        if guilty is not None:
            raise guilty
        return [results[rank] for rank in sorted(results)], lost or unheard

    def _meet(self, size: int) -> Meeting:
        """Open a store, which outlives all workers, and think of a name not used before."""
        host = self.workers.host()
        if self._store is None:
            self._store = _store_at(host)
        self._meetings += 1
        backend = "nccl" if self.workers.own_gpus() else "gloo"
        name, port = f"meeting-{self._meetings}", self._store.port
        return Meeting(host, port, name, size, self._timeout_s, backend)


def _store_at(host: str) -> TCPStore:
    """Open a store that listens at one address: torch's own would at all of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)
    port, handle = listener.getsockname()[1], listener.detach()
    return TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=handle)


def _linked(
    function: Callable[..., Any], meeting: Meeting, rank: int, *arguments: Any, device: str
) -> Any:
    """Run a function in a worker, with a link to the others."""
    if meeting.size == 1:
        return function(NoLink(), *arguments, device=device)
    link = TorchLink(meeting, rank, device)
    try:
        return function(link, *arguments, device=device)
    finally:
        link.close()
