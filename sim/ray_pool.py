"""Ray workers: each process runs many clients, and the same lines for them as `InlinePool`."""

import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

# Without this Ray warns, at every start, of a change to come that concerns GPUs we did not ask for.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import joblib
import ray
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

from sim.tasks import Outcome, Raised, Task, assume_task_identity, pin_threads, run_task

IN_FLIGHT = 2
"""Tasks sent ahead to each worker: with one it idles for a round trip (1.2 ms) after each task."""

RETRIES = 3
"""How often a task whose worker died is run again, alone, before its client counts as failed."""


class Worker:
    """The process side. Keeps the program and the data, nothing of any client."""

    def __init__(self, app: list["ray.ObjectRef[ClientApp]"], seed: int, threads: int) -> None:
        """Fetch the program; its numpy arrays stay in shared memory, read only.

        Args:
            app: Reference to the program, in a list so that Ray does not fetch it for us.
            seed: The run's seed.
            threads: Threads of this process.
        """
        pin_threads(threads)
        assume_task_identity(run_id=1)
        self._app = ray.get(app[0])
        self._seed = seed

    def run(
        self, task: Task, content: RecordDict, state: RecordDict | None
    ) -> tuple[tuple[Message | None, Raised | None], RecordDict]:
        """Run one task; return (reply, what was raised) and, as an object of its own, the state."""
        given = RecordDict() if state is None else state
        reply, raised, after = run_task(self._app, task, content, given, self._seed)
        return (reply, raised), after


class RayPool:
    """Spreads tasks over Ray actors, each of one process; whoever is free takes the next.

    A worker that dies is replaced, and the tasks it had are run again: they are pure functions, so
    nothing of the result changes.
    """

    def __init__(
        self,
        app: ClientApp,
        seed: int,
        workers: int | None = None,
        threads: int = 1,
        address: str | None = None,
    ) -> None:
        """Start Ray, or join a cluster or a Ray that this process has started, and the workers.

        Args:
            app: The program of all clients, with their data. It is put into Ray's object store
                once per machine; numpy arrays in it are mapped by the workers, not copied.
            seed: The run's seed.
            workers: Number of processes, >= 1; None = one per CPU core.
            threads: Threads of each, and of this process, >= 1; part of the bits.
            address: Of a running cluster; None = a private one on this machine.
        """
        pin_threads(threads)
        if workers is None and address is None:
            workers = joblib.cpu_count()  # those this process may use, in a container too
        self._started_ray = not ray.is_initialized()
        if self._started_ray:
            _start_ray(workers, address)
        try:
            count = workers or int(ray.cluster_resources()["CPU"])  # type: ignore[no-untyped-call]
            # Workers must find the same modules, user files included, as this process does.
            paths = os.pathsep.join(path for path in sys.path if path)
            environment = {"PYTHONPATH": paths, "OMP_NUM_THREADS": str(threads)}
            options = {"num_cpus": 1, "runtime_env": {"env_vars": environment}}
            make: Any = ray.remote(**options)(Worker)  # type: ignore[call-overload]
            program = ray.put(app)
            self._start: Callable[[], Any] = lambda: make.remote([program], seed, threads)
            self._workers = [self._start() for _ in range(count)]
        except BaseException:
            self._stop_ray()
            raise

    def share(self, content: RecordDict) -> "ray.ObjectRef[RecordDict]":
        """Put a content into the object store once, for every task that carries it."""
        return ray.put(content)

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Run the tasks on whichever worker is free; see `Pool.run`."""
        waiting, lost = deque(tasks), list[Task]()
        free = deque([*range(len(self._workers))] * IN_FLIGHT)
        running: dict[Any, tuple[Task, int, Any, Any]] = {}
        while waiting or running:
            while waiting and free:
                task, place = waiting.popleft(), free.popleft()
                answer, state = self._send(task, place)
                running[answer] = (task, place, self._workers[place], state)
            done, _ = ray.wait(list(running), num_returns=1)
            task, place, worker, state = running.pop(done[0])
            free.append(place)
            outcome = _outcome(task, done[0], state)
            if outcome is None:
                lost.append(task)
                if self._workers[place] is worker:  # else its other task has seen to it
                    self._workers[place] = self._start()
            else:
                yield outcome
        # Whoever shared a worker with a client that kills it is innocent: now each runs alone.
        for task in lost:
            yield self._run_alone(task)

    def state_of(self, handle: Any) -> RecordDict:
        """Fetch a client's state from the object store."""
        return RecordDict() if handle is None else ray.get(handle)

    def close(self) -> None:
        """End the workers and, if this pool started it, Ray."""
        for worker in self._workers:
            ray.kill(worker)
        self._workers = []
        self._stop_ray()

    def _send(self, task: Task, place: int) -> tuple[Any, Any]:
        """Start a task; its handles go beside it, because Ray resolves only whole arguments."""
        bare = replace(task, content=None, state=None)
        call = self._workers[place].run.options(num_returns=2)
        answer, state = call.remote(bare, task.content, task.state)
        return answer, state

    def _run_alone(self, task: Task) -> Outcome:
        for _ in range(RETRIES):
            answer, state = self._send(task, 0)
            if outcome := _outcome(task, answer, state):
                return outcome
            self._workers[0] = self._start()
        reason = f"worker lost: it died {RETRIES + 1} times running this client"
        return Outcome(task.client_id, None, Raised(reason, ""), task.state)

    def _stop_ray(self) -> None:
        if self._started_ray:
            ray.shutdown()
            self._started_ray = False


def _start_ray(workers: int | None, address: str | None) -> None:
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():  # Ray itself would try for minutes
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError as error:
            raise ValueError(f"sim.address={address}: no Ray cluster answers: {error}") from error
    ray.init(
        address=address or "local",  # None would join whatever $RAY_ADDRESS names
        num_cpus=None if address else workers,
        include_dashboard=False if address is None else None,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _outcome(task: Task, answer: Any, state: Any) -> Outcome | None:
    """Fetch what came of a task; None if its worker died."""
    try:
        reply, raised = ray.get(answer)
    except ray.exceptions.RayTaskError as error:  # ours ran, and its answer could not be pickled
        raised = Raised("the reply cannot be sent", str(error))
        return Outcome(task.client_id, None, raised, task.state)
    except ray.exceptions.RayError as death:  # killed, out of memory, machine gone, ...
        if getattr(death, "actor_init_failed", False):  # no worker can start: again is no use
            return Outcome(task.client_id, None, Raised("no worker starts", str(death)), task.state)
        return None
    return Outcome(task.client_id, reply, raised, task.state if raised else state)
