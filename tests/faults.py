"""A small run that may lose its workers, or its driver wherever it writes; its hash."""

import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flwr.app import Message

from clients.app import SimulatedApp
from clients.messages.arrays import write_arrays
from clients.models.discriminator import DiscriminatorRecipe
from clients.models.factory import parameters_of
from clients.population.clients import SimulatedClients
from sim.checkpoint.manifest import manifests
from sim.checkpoint.writing import Checkpoints
from sim.engine.grid import PoolGrid
from sim.topology import graphs
from sim.topology.availability import Availability
from sim.topology.mixing import uniform
from sim.topology.topology import Topology
from sim.tracking.run_folder import METRICS, truncate
from sim.tracking.tracker import Tracker
from sim.workers.pools import Pool
from sim.workers.state_serialization import freeze
from strategies.aggregation.scorers import own_odds
from tests.federations import (
    SEED,
    distillation,
    handlers_of,
    run_ours,
    student_of,
    tiny_clients,
)
from tests.peers import gossip

CLIENTS, ROUNDS, GROUP_SIZE = 5, 2, 2
METHODS = ("dlad", "gossip")
KILLS = ("train", "predict", "returning")
"""When a worker is killed: while it trains, between two clients' predictions, and as it answers."""

MACHINE = "machine"


class Mortal(SimulatedApp):
    """Our clients; a file named as one of `KILLS` kills the worker that first finds it.

    `MACHINE` holds the id of a process; the first worker that this one started kills it: Ray's own
    on one machine, with which Ray takes the whole machine for lost.
    """

    def __init__(self, clients: SimulatedClients, orders: Path, strategy: Any) -> None:
        super().__init__(clients, handlers_of(strategy))
        self._orders = orders

    def serve(self, requests: Any, contexts: Any, device: str = "cpu") -> Iterator[Any]:
        trains = requests[0].metadata.message_type.startswith("train")
        if trains and self._is_on_the_machine():
            os.kill(os.getppid(), signal.SIGKILL)
        if trains and self._obeys("train"):
            die_after(0.002)
        for place, answer in enumerate(super().serve(requests, contexts, device)):
            if place == 0 and not trains and self._obeys("predict"):
                os.kill(os.getpid(), signal.SIGKILL)
            if trains and place == len(requests) - 1 and self._obeys("returning"):
                die_after(0.001)
            assert isinstance(answer, Message | Exception)
            yield answer

    def _is_on_the_machine(self) -> bool:
        """Tell whether this worker is to lose its machine; others wait for that, up to a minute."""
        order = self._orders / MACHINE
        if order.exists() and order.read_text() == str(os.getppid()):
            order.unlink()
            return True
        for _ in range(600):
            if not order.exists():
                break
            time.sleep(0.1)
        return False

    def _obeys(self, kill: str) -> bool:
        try:
            (self._orders / kill).unlink()
        except FileNotFoundError:
            return False
        return True


def die_after(seconds: float) -> None:
    """Kill this process in a moment."""
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()


def strategy_of(method: str, clients: SimulatedClients) -> Any:
    """DLAD with discriminators, or gossip with letters that come late."""
    if method == "dlad":
        return distillation(
            clients,
            scorer=own_odds,
            discriminator=DiscriminatorRecipe("features", balanced=False, l2=0.01),
            fraction=0.8,
            feed_back=True,
        )
    peers = {"num_peers": CLIENTS, "seed": SEED}
    graph = Topology(graphs.ring, uniform, **peers)
    there = Availability(drop_probability=0.2, late_probability=0.3, **peers)
    return gossip(clients, graph, availability=there)


def hash_of_run(
    pool: Pool, method: str, folder: Path, orders: Path, resume: bool = False, rounds: int = ROUNDS
) -> str:
    """Run a method, each round committed; hash the student, all states, rows and lines."""
    clients = tiny_clients(CLIENTS)
    strategy = strategy_of(method, clients)
    pool.load(Mortal(clients, orders, strategy))
    checkpoints, done = Checkpoints(folder / "checkpoint", SEED, method), None
    if resume and manifests(folder / "checkpoint"):
        done = checkpoints.load(rounds)
    for name, lines in ({METRICS: 0, "failures.jsonl": 0} if done is None else done.lines).items():
        truncate(folder / name, lines)
    grid = PoolGrid(pool, clients.architectures, group_size=GROUP_SIZE)
    begun = write_arrays(parameters_of(student_of(clients)))
    arrays, first_round = checkpoints.start(strategy, grid, begun)
    tracker = Tracker(folder, {}, "", None if done is None else done.clients)
    try:
        run = run_ours(
            pool,
            clients,
            strategy,
            rounds,
            arrays=arrays,
            first_round=first_round,
            grid=grid,
            report=tracker.round,
            commit=checkpoints.after_rounds(1, rounds, complain, strategy, grid, tracker),
        )
    finally:
        tracker.close()
    digest = hashlib.sha256(run.sha256.encode())
    for client_id in range(CLIENTS):
        digest.update(freeze(grid.states.of(client_id)))
    for name in (METRICS, "clients.parquet"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def complain(text: str) -> None:
    """Take no warning lightly."""
    raise AssertionError(text)


# --- the driver ---


class Killed(BaseException):
    """The driver is no more."""


class WritePoints:
    """Counts what a folder's files go through; at one of these points the driver is killed.

    Attributes:
        seen: How many there were.
    """

    def __init__(self) -> None:
        """Listen; nothing is counted yet. Python cannot forget such a hook."""
        self._folder: str | None = None
        self._last = 0
        self.seen = 0
        sys.addaudithook(self._hook)

    @contextmanager
    def killing(self, folder: Path, at: int) -> Iterator[None]:
        """Count in a folder for the block, and let nothing happen from the `at`-th point on."""
        self._folder, self._last, self.seen = str(folder), at, 0
        try:
            yield
        finally:
            self._folder = None

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._folder is None or event not in POINTS or not POINTS[event](arguments):
            return
        path = os.fspath(arguments[0]) if not isinstance(arguments[0], int) else ""
        if isinstance(path, str) and path.startswith(self._folder) and "/events/" not in path:
            self.seen += 1
            if self.seen >= self._last:
                raise Killed


POINTS: dict[str, Callable[[Any], bool]] = {
    "open": lambda arguments: bool(arguments[2] & (os.O_WRONLY | os.O_RDWR)),
    "os.rename": lambda arguments: True,
    "os.remove": lambda arguments: True,
    "os.truncate": lambda arguments: True,
    "os.mkdir": lambda arguments: True,
}
"""Audit events of Python's that change a file or a folder."""


def killed_and_resumed(
    pool: Pool, method: str, folder: Path, orders: Path, points: WritePoints, at: int
) -> tuple[int | None, str]:
    """Kill the driver at a point, go on from what it left.

    Returns:
        How many commits it had left, or None if it did not die; and the hash.
    """
    folder.mkdir()
    try:
        with points.killing(folder, at):
            return None, hash_of_run(pool, method, folder, orders)
    except Killed:
        left = len(manifests(folder / "checkpoint"))
        return left, hash_of_run(pool, method, folder, orders, resume=True)
