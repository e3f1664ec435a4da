"""Ray workers: each process runs many clients, and the same lines for them as `InlinePool`.

Whatever needs torch is imported where it is used: Ray starts while this process still imports it,
1.3 s sooner.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import ray

from sim.ray_cluster import require_answer, room_for, start_ray, stop_ray, worker_options
from sim.ray_worker import Worker

if TYPE_CHECKING:
    from flwr.app import RecordDict
    from flwr.clientapp import ClientApp

    from clients.training import Trainer
    from sim.ray_peers import SharedTraining, SpreadPeers
    from sim.tasks import Group, Outcome

IN_FLIGHT = 2
"""Groups sent ahead to each worker: with one it idles for a round trip (1.2 ms) after each."""

RETRIES = 3
"""How often a client whose worker died is run again, alone, before it counts as failed."""


class RayPool:
    """Spreads groups over Ray actors, each of one process; whoever is free takes the next.

    A worker that dies is replaced, and the groups it had are run again: they are pure functions, so
    nothing of the result changes.
    """

    concurrent = True

    def __init__(
        self,
        seed: int,
        workers: int | None = None,
        threads: int = 1,
        device: str = "cpu",
        gpus_per_worker: float = 1.0,
        object_store_bytes: int | None = None,
        address: str | None = None,
        peer_workers: int | None = None,
        peer_timeout_s: float = 120.0,
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

        Raises:
            ValueError: No cluster answers at the address. `load` raises it where Ray has no room
                for so many workers.
        """
        require_answer(address)
        if workers is None and address is None and device == "cpu":
            workers = joblib.cpu_count()  # those this process may use, in a container too
        self._started_ray = not ray.is_initialized()
        self._private = self._started_ray and address is None
        self._peer_workers = peer_workers
        self._peer_timeout_s = peer_timeout_s
        self._whole_gpus = device != "cpu" and gpus_per_worker >= 1
        self._folder: Path | None = None
        self._workers: list[Any] = []
        self._program: Any = None
        self._loading: list[Any] = []
        self._start: Callable[[], Any] = lambda: None

        def start() -> None:
            if self._started_ray:
                self._folder = start_ray(workers, object_store_bytes, address, threads)
            options = worker_options(threads, device, gpus_per_worker, self._private)
            make = ray.remote(**options)(Worker)
            room = room_for(device, gpus_per_worker, free=not self._started_ray)
            if workers and workers > room:  # surplus ones would be waited for, for ever
                raise ValueError(f"sim.workers={workers}: Ray has room for {room} on {device}")
            count = workers or room
            self._start = lambda: make.remote(seed, threads, device)
            self._workers = [self._start() for _ in range(count)]

        # The thread stays until the end: Linux ends Ray's processes with the thread that made them.
        self._executor = ThreadPoolExecutor(1, "ray-start")
        self._starting = self._executor.submit(start)
        from sim.processes import keep_memory, pin_threads

        pin_threads(threads)
        keep_memory()

    def load(self, app: "ClientApp") -> None:
        """Put the program, with its data, into the object store, once per machine.

        Numpy arrays in it are mapped by the workers, not copied.

        Args:
            app: The program of all clients.
        """
        try:
            self._starting.result()
            self._program = ray.put(app)
            self._loading = [worker.load.remote(self._program) for worker in self._workers]
        except BaseException:
            self._workers = []  # or `close` would start Ray anew to end them
            self._stop_ray()
            raise

    def share(self, content: "RecordDict") -> "ray.ObjectRef[bytes]":
        """Put a content into the object store once, for every group that carries it."""
        from sim.running import frozen_content

        return ray.put(frozen_content(content))

    def states(self, folder: Path) -> dict[int, "ray.ObjectRef[bytes]"]:
        """Return a place for references.

        States live in the object store, which spills itself; Ray keeps those below 100 KB in this
        process instead.
        """
        return {}

    def run(self, groups: "Iterable[Group]") -> "Iterator[Outcome]":
        """Run the groups on whichever worker is free; see `Pool.run`."""
        self._require_loaded()
        waiting, lost = deque(groups), list[Any]()
        places = [*range(len(self._workers))]
        # There and back, as who gets the longest group first should get the shortest of the next.
        free = deque(place for i in range(IN_FLIGHT) for place in places[:: 1 - 2 * (i % 2)])
        running: dict[Any, tuple[Any, int, Any, list[Any]]] = {}
        while waiting or running:
            while waiting and free:
                group, place = waiting.popleft(), free.popleft()
                answer, objects = self._send(group, place)
                running[answer] = (group, place, self._workers[place], objects)
            done, _ = ray.wait(list(running), num_returns=1)
            group, place, worker, objects = running.pop(done[0])
            free.append(place)
            outcome = self._fetch(group, done[0], objects)
            if outcome is None:
                lost.append(group)
                if self._workers[place] is worker:  # else its other group has seen to it
                    self.replace(place)
            else:
                yield outcome
        # Whoever shared a worker with a client that kills it is innocent: now each runs alone.
        for group in lost:
            yield self._run_alone(group)

    def frozen(self, handle: Any) -> bytes | None:
        """Fetch a state, or payload, from the object store."""
        return None if handle is None else ray.get(handle)

    def keep(self, frozen: bytes) -> Any:
        """Put a state, or payload, into the object store."""
        return ray.put(frozen)

    def train_peers(self, warn: Callable[[str], None]) -> "SpreadPeers":
        """Return what trains groups of peers over these workers; see `Pool.train_peers`."""
        from sim.ray_peers import SpreadPeers
        from sim.ray_together import Together

        return SpreadPeers(Together(self, self._peer_timeout_s, warn), self._peer_workers)

    def share_training(
        self, train: "Trainer", workers: int, warn: Callable[[str], None]
    ) -> "SharedTraining":
        """Return a trainer that spreads each batch over workers; see `SharedTraining`."""
        from sim.ray_peers import SharedTraining
        from sim.ray_together import Together

        return SharedTraining(Together(self, self._peer_timeout_s, warn), workers, train)

    def size(self) -> int:
        """Return the number of workers."""
        self._require_loaded()
        return len(self._workers)

    def host(self) -> str:
        """Return the address under which workers reach this process."""
        return "127.0.0.1" if self._private else str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]

    def own_gpus(self) -> bool:
        """Tell whether each worker has a whole GPU."""
        return self._whole_gpus

    def call(self, place: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """Start a function, given the arguments and `device`, in one worker; return a reference."""
        return self._workers[place].apply.remote(function, *arguments)

    def replace(self, place: int) -> None:
        """Put a new worker where one was lost, or hangs."""
        ray.kill(self._workers[place])  # were it alive, the new one might wait for its CPU for ever
        self._workers[place] = self._start()
        self._workers[place].load.remote(self._program)

    def close(self) -> None:
        """End the workers and, if this pool started it, Ray."""
        self._starting.exception()  # wait for it
        for worker in self._workers:
            ray.kill(worker)
        self._workers = []
        self._stop_ray()

    def _send(self, group: "Group", place: int) -> tuple[Any, list[Any]]:
        """Start a group; its handles go beside it, because Ray resolves only whole arguments."""
        from clients.folding import Keep

        flags = tuple(state is not None for state in group.states)
        bare = replace(group, content=None, states=flags, payloads=())
        there = [state for state in group.states if state is not None]
        objects = len(group.tasks) * (2 if isinstance(group.intake, Keep) else 1)
        call = self._workers[place].run.options(num_returns=1 + objects)
        answer, *rest = call.remote(bare, group.content, *there, *group.payloads)
        return answer, rest

    def _require_loaded(self) -> None:
        """Wait for the program to be in all workers, the first time."""
        loading, self._loading = self._loading, []
        for answer in loading:
            try:
                ray.get(answer)
            except ray.exceptions.RayTaskError as error:
                raise RuntimeError(f"the workers cannot load the program: {error}") from error
            except ray.exceptions.RayError:
                continue  # the worker died: the first group that it does not answer shows it

    def _run_alone(self, group: "Group") -> "Outcome":
        from sim.outcomes import failed, joined, singles

        single = len(group.tasks) == 1
        for _ in range(RETRIES):
            answer, objects = self._send(group, 0)
            if outcome := self._fetch(group, answer, objects):
                return outcome
            self.replace(0)
        if single:
            return failed(group, f"worker lost: it died {RETRIES + 1} times running this client")
        # One of them is guilty. What the others come to is folded, and rounded, in another order.
        return joined(group, [self._run_alone(one) for one in singles(group)])

    def _fetch(self, group: "Group", answer: Any, objects: list[Any]) -> "Outcome | None":
        """Fetch what came of a group; None if its worker died."""
        from sim.outcomes import failed, joined, singles

        try:
            outcome: Outcome = ray.get(answer)
        except ray.exceptions.RayTaskError as error:  # ours ran, and an answer cannot be pickled
            if len(group.tasks) == 1:
                return failed(group, "it cannot be run, or its reply not be sent", str(error))
            return joined(group, [self._run_alone(one) for one in singles(group)])
        except ray.exceptions.RayError as death:  # killed, out of memory, machine gone, ...
            if getattr(death, "actor_init_failed", False):  # no worker can start: again is no use
                return failed(group, "no worker starts", str(death))
            return None
        size = len(outcome.states)  # of all tasks, or none if the strategy's rule broke
        states = zip(outcome.states, objects[:size], strict=True)
        kept = zip(outcome.kept, objects[size:], strict=False)  # none where nothing was to be kept
        return replace(
            outcome,
            states=[ref if changed else None for changed, ref in states],
            kept=[ref if there else None for there, ref in kept],
        )

    def _stop_ray(self) -> None:
        if self._started_ray:
            stop_ray(self._folder)
            self._started_ray = False
        self._executor.shutdown()
