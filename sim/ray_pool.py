"""Ray workers: each process runs many clients, and the same lines for them as `InlinePool`."""

import logging
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

# Without this Ray warns, at every start, of a change to come that concerns GPUs we did not ask for.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

from sim.tasks import Outcome, Task, pin_threads, run_task

IN_FLIGHT = 2
"""Tasks sent ahead to each worker: with one it idles for a round trip (1.2 ms) after each task."""

RETRIES = 3
"""How often a task is run again after its worker died, before its client counts as failed."""


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
        self._app = ray.get(app[0])
        self._seed = seed

    def run(
        self, task: Task, content: RecordDict, state: RecordDict | None
    ) -> tuple[tuple[Message | None, str | None], RecordDict]:
        """Run one task; return (reply, traceback) and, as an object of its own, the state."""
        reply, error, after = run_task(
            self._app, task, content, RecordDict() if state is None else state, self._seed
        )
        return (reply, error), after


class RayPool:
    """Spreads tasks over Ray actors, each of one process; whoever is free takes the next."""

    def __init__(
        self,
        app: ClientApp,
        seed: int,
        workers: int | None = None,
        threads: int = 1,
        address: str | None = None,
    ) -> None:
        """Start Ray (or join a cluster) and the workers.

        Args:
            app: The program of all clients, with their data. It is put into Ray's object store
                once per machine; numpy arrays in it are mapped by the workers, not copied.
            seed: The run's seed.
            workers: Number of processes, >= 1; None = one per CPU core.
            threads: Threads of each, >= 1; part of the bits.
            address: Of a running cluster; None = a private one on this machine.
        """
        if workers is None and address is None:
            workers = len(os.sched_getaffinity(0))
        paths = os.pathsep.join(path for path in sys.path if path)
        ray.init(
            address=address,
            num_cpus=None if address else workers,
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            # Workers must find the same modules, user files included, as this process does.
            runtime_env={"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": str(threads)}},
        )
        workers = workers or int(ray.cluster_resources()["CPU"])  # type: ignore[no-untyped-call]
        program = ray.put(app)
        make: Any = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=RETRIES)(Worker)
        self._program = program  # while we hold it, restarted workers can fetch it again
        self._workers = [make.remote([program], seed, threads) for _ in range(workers)]

    def share(self, content: RecordDict) -> "ray.ObjectRef[RecordDict]":
        """Put a content into the object store once, for every task that carries it."""
        return ray.put(content)

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Run the tasks on whichever worker is free; see `Pool.run`."""
        waiting = deque(tasks)
        free = deque(self._workers * IN_FLIGHT)
        running: dict[Any, tuple[Task, Any, Any]] = {}
        while waiting or running:
            while waiting and free:
                task, worker = waiting.popleft(), free.popleft()
                answer, state = worker.run.options(num_returns=2).remote(
                    _without_handles(task), task.content, task.state
                )
                running[answer] = (task, worker, state)
            done, _ = ray.wait(list(running), num_returns=1)
            task, worker, state = running.pop(done[0])
            free.append(worker)
            yield _outcome(task, done[0], state)

    def state_of(self, handle: Any) -> RecordDict:
        """Fetch a client's state from the object store."""
        return RecordDict() if handle is None else ray.get(handle)

    def close(self) -> None:
        """End the workers and, if it was ours, Ray."""
        for worker in self._workers:
            ray.kill(worker)
        ray.shutdown()


def _without_handles(task: Task) -> Task:
    """Keep references out of the task itself: Ray would track them, and not resolve them."""
    return replace(task, content=None, state=None)


def _outcome(task: Task, answer: Any, state: Any) -> Outcome:
    try:
        reply, error = ray.get(answer)
    except ray.exceptions.RayError as failure:  # the worker died more often than RETRIES
        return Outcome(task.client_id, None, f"worker lost: {failure}", task.state)
    return Outcome(task.client_id, reply, error, task.state if error else state)
