"""Ray workers: each process runs many clients, and the same lines for them as `InlinePool`.

Whatever needs torch is imported where it is used: Ray starts while this process still imports it,
1.3 s sooner.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import joblib
import ray

from sim.workers.ray_cluster import (
    ray_ended,
    require_answer,
    require_ray,
    room_for,
    start_ray,
    stop_ray,
    worker_options,
)
from sim.workers.ray_deaths import FULL, ended_by
from sim.workers.ray_worker import Worker
from sim.workers.ray_workers import SAY_AFTER_S, SAY_EVERY_S, RayWorkers

if TYPE_CHECKING:
    from flwr.app import RecordDict
    from flwr.clientapp import ClientApp

    from clients.handlers.base import Handler
    from clients.training.loop import Trainer
    from sim.workers.quarantine import Suspects
    from sim.workers.ray_group_training import SharedTraining, SpreadPeers
    from sim.workers.tasks import Group, Outcome


class RayPool:
    """Spreads groups over Ray actors, each of one process; whoever is free takes the next.

    A worker that dies is replaced, and the groups it had are run again: they are pure functions, so
    nothing of the result changes. Where a machine may be lost, states and payloads are kept on this
    one.
    """

    concurrent = True

    def __init__(
        self,
        seed: int,
        workers: Annotated[int, ">= 1"] | None = None,
        threads: Annotated[int, ">= 1"] = 1,
        device: str = "cpu",
        gpus_per_worker: Annotated[float, "> 0"] = 1.0,
        object_store_bytes: Annotated[int, ">= 78643200, Ray's least"] | None = None,
        address: str | None = None,
        peer_workers: Annotated[int, ">= 1"] | None = None,
        peer_timeout_s: Annotated[float, "> 0"] = 120.0,
        client_timeout_s: Annotated[float, "> 0, or null for never"] | None = None,
    ) -> None:
        """Begin to start Ray, or join a cluster or a Ray of this process, and the workers.

        It goes on in the background, 5 s on a laptop, until `load` is called.

        Args:
            seed: The run's seed.
            workers: Number of processes, >= 1; None = one per CPU core, or as many as the GPUs
                hold.
            threads: Threads of each, and of this process, >= 1; part of the bits.
            device: Where clients compute: "cpu" or "cuda".
            gpus_per_worker: Share of a GPU that each worker is given on "cuda", > 0: with 0.25
                four workers share one.
            object_store_bytes: Shared memory for data, payloads and idle clients' states; beyond it
                Ray spills to files. None = Ray's own choice, a third of the memory.
            address: Of a running cluster, which has a store; None = a private one on this machine.
            peer_workers: Most workers that a group of peers is spread over, >= 1: with 1 all its
                peers are in one process; None = all workers.
            peer_timeout_s: How long a peer waits for another one, > 0.
            client_timeout_s: How long a client may take for a message, > 0, by the clock on the
                wall: a safety net against those that hang, whose workers are ended. None = for
                ever.

        Raises:
            ValueError: No cluster answers at the address. `load` raises it where Ray has no room
                for so many workers.
        """
        require_answer(address)
        if workers is None and address is None and device == "cpu":
            workers = joblib.cpu_count()  # those this process may use, in a container too
        most = max(16, 4 * joblib.cpu_count())
        if workers and address is None and workers > most:
            raise ValueError(
                f"sim.workers={workers}: this machine has {joblib.cpu_count()} cores, and each "
                f"worker takes 0.3 GB and more: expected at most {most}"
            )
        self._started_ray = not ray.is_initialized()
        self._private = self._started_ray and address is None
        self._peer_workers = peer_workers
        self._peer_timeout_s = peer_timeout_s
        self._whole_gpus = device != "cpu" and gpus_per_worker >= 1
        self._client_timeout_s = client_timeout_s
        self._scattered = address is not None  # a cluster may grow, and shrink
        self._folder: Path | None = None
        self._suspects: Suspects | None = None
        self._workers: RayWorkers | None = None

        def start() -> None:
            if self._started_ray:
                self._folder = start_ray(workers, object_store_bytes, address, threads)
            options = worker_options(threads, device, gpus_per_worker, self._private)
            make = ray.remote(**options)(Worker)
            room = room_for(device, gpus_per_worker, free=not self._started_ray)
            if workers and workers > room:  # surplus ones would be waited for, for ever
                raise ValueError(f"sim.workers={workers}: Ray has room for {room} on {device}")
            count = workers or room
            self._scattered |= sum(bool(node["Alive"]) for node in ray.nodes()) > 1  # type: ignore[no-untyped-call]
            self._workers = RayWorkers(
                lambda claim: (make if claim else make.options(num_cpus=0)).remote(
                    seed, threads, device
                ),
                count,
                SAY_EVERY_S if self._private else SAY_AFTER_S,  # nobody else has its CPUs
            )

        # The thread stays until the end: Linux ends Ray's processes with the thread that made them.
        self._executor = ThreadPoolExecutor(1, "ray-start")
        self.handlers: Mapping[str, Handler] = {}
        self._starting = self._executor.submit(start)
        from sim.workers.process_setup import keep_memory, pin_threads

        pin_threads(threads)
        keep_memory()

    def load(self, app: "ClientApp", handlers: "Iterable[Handler]" = ()) -> None:
        """Put the program, with its data, into the object store, once per machine.

        Numpy arrays in it are mapped by the workers, not copied. Nobody is suspected any more.

        Args:
            app: The program of all clients.
            handlers: As in `sim.workers.tasks.program_of`.
        """
        try:
            self._starting.result()
            from sim.workers.quarantine import Suspects
            from sim.workers.tasks import program_of

            program = program_of(app, handlers)
            self._suspects, self.handlers = Suspects(), program.handlers
            self._there().load(ray.put(program))
        except BaseException:
            self._workers = None  # or `close` would start Ray anew to end them
            self._stop_ray()
            raise

    def share(self, content: "RecordDict") -> "ray.ObjectRef[bytes]":
        """Put a content into the object store once, for every group that carries it."""
        from sim.workers.runner import frozen_content

        return _put(frozen_content(content))

    def states(self, folder: Path) -> dict[int, "ray.ObjectRef[bytes]"]:
        """Return a place for references.

        States live in the object store, which spills itself; Ray keeps those below 100 KB in this
        process instead.
        """
        return {}

    def run(self, groups: "Iterable[Group]") -> "Iterator[Outcome]":
        """Run the groups on whichever worker is free; see `Pool.run`."""
        from sim.workers.ray_dispatch import Dispatch

        assert self._suspects is not None, "load the program first"
        workers, suspects = self._there(), self._suspects
        about = self._client_timeout_s, self._secured, not self._scattered
        return Dispatch(workers, suspects, groups, *about).outcomes()

    def frozen(self, handle: Any) -> bytes | None:
        """Fetch a state, or payload, from the object store."""
        return None if handle is None else ray.get(handle)

    def keep(self, frozen: bytes) -> Any:
        """Put a state, or payload, into the object store."""
        return _put(frozen)

    def train_peers(self, warn: Callable[[str], None]) -> "SpreadPeers":
        """Return what trains groups of peers over these workers; see `Pool.train_peers`."""
        from sim.workers.ray_group_training import SpreadPeers
        from sim.workers.ray_together import Together

        return SpreadPeers(Together(self, self._peer_timeout_s, warn), self._peer_workers)

    def share_training(
        self, train: "Trainer", workers: int, warn: Callable[[str], None]
    ) -> "SharedTraining":
        """Return a trainer that spreads each batch over workers; see `SharedTraining`."""
        from sim.workers.ray_group_training import SharedTraining
        from sim.workers.ray_together import Together

        return SharedTraining(Together(self, self._peer_timeout_s, warn), workers, train)

    def size(self) -> int:
        """Return the number of workers."""
        return len(self._there().actors)

    def gather(self, size: int, timeout_s: float) -> None:
        """Wait until so many workers are up; see `RayWorkers.gather`."""
        self._there().gather(size, timeout_s)

    def look(self) -> None:
        """Raise PoolLost if the Ray that this pool started has ended."""
        if self._private:
            require_ray()

    def host(self) -> str:
        """Return the address under which workers reach this process."""
        return "127.0.0.1" if self._private else str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]

    def own_gpus(self) -> bool:
        """Tell whether each worker has a whole GPU."""
        return self._whole_gpus

    def call(self, rank: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """Start a function, given the arguments and `device`, in one worker; return a reference."""
        workers = self._there()
        return workers.actors[workers.of_rank(rank)].apply.remote(function, *arguments)

    def replace(self, rank: int) -> None:
        """Put a new worker where one was lost, or hangs."""
        workers = self._there()
        workers.replace(workers.of_rank(rank))

    def close(self) -> None:
        """End the workers and, if this pool started it, Ray."""
        self._starting.exception()  # wait for it
        if self._workers is not None:
            if not (self._private and ray_ended()):  # it would be asked in vain for 60 s
                self._workers.end()
            self._workers = None
        self._stop_ray()

    def _there(self) -> RayWorkers:
        assert self._workers is not None, "load the program first"
        return self._workers

    def _secured(self, handles: list[Any]) -> list[Any]:
        """Move states and payloads to this machine, where there are others that may be lost."""
        return [_put(each) for each in ray.get(handles)] if self._scattered else handles

    def _stop_ray(self) -> None:
        if self._started_ray:
            stop_ray(self._folder)
            self._started_ray = False
        self._executor.shutdown()


def _put(what: bytes) -> "ray.ObjectRef[bytes]":
    """Put into the object store; without room the run ends, as no client can help it."""
    try:
        return ray.put(what)
    except FULL as error:
        raise ended_by(error) from error
