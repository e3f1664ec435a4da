"""A tiny federation on Gaussian blobs, the pools that it runs on, and what a run of it gave."""

import gc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.serverapp.strategy import Strategy

from clients.app import SimulatedApp
from clients.data import blobs, split
from clients.duck_typing import told
from clients.handlers.base import Handler
from clients.handlers.peer_targets import RELAY
from clients.messages.arrays import read_arrays, write_arrays
from clients.models import logistic_regression, mlp
from clients.models.factory import build, load_parameters, parameters_of
from clients.population.clients import SimulatedClients
from clients.seeding import Purpose, generator
from clients.training.evaluation import evaluate
from clients.training.loop import train
from sim.engine.grid import PoolGrid
from sim.engine.rounds import RoundReport, run_rounds
from sim.tracking.run_folder import sha256_of_arrays
from sim.workers.pools import InlinePool, Pool
from strategies.aggregation.combiners import mean_of_probs
from strategies.aggregation.scorers import uniform
from strategies.decentralised.gossip_averaging import ParameterGossip
from strategies.server.distillation import DistillationStrategy
from tests.foreign_clients import foreign_app
from tests.parts import whole
from tests.places import ROOT

SEED = 7
ALONE = {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1}
"""A strategy of Flower's asks one client if there is no other."""
MOST_WORKERS = 4
_kept: list[Any] = []
"""The pool over Ray of this process, if there is one, of so many workers."""


@contextmanager
def open_pool(kind: str, app: Any, workers: int = 2) -> Iterator[Pool]:
    """Open an inline pool, or one of so many workers over Ray, at most four; one at a time.

    That of Ray is kept for whoever asks next, with all its workers: 10 s, and 17 CPU seconds.
    """
    if kind == "inline":
        yield inline(app)
        return
    pool = _kept.pop() if _kept else _ray_pool()
    others = _set_aside(pool, workers)
    usable = False
    try:
        with ray_left_open():
            assert _all_ready(pool, app, 60.0)
        yield pool
        usable = True
    except Exception:  # a test may expect it, and it may have left anything
        usable = _all_ready(pool, None, 10.0)
        raise
    finally:
        pool._there().actors += others
        _kept.append(pool)
        if not usable:
            close_kept_pool()


def _all_ready(pool: Any, app: Any, timeout_s: float) -> bool:
    """Tell whether all workers take a program, and wait for them."""
    pool.load(app)
    pool.gather(pool.size(), timeout_s)
    return len(pool._there().ready) == pool.size()


def _set_aside(pool: Any, workers: int) -> list[Any]:
    """Leave a pool so many workers; return the others."""
    actors = pool._there().actors
    others = actors[workers:]
    del actors[workers:]
    return others


def close_kept_pool() -> None:
    """End the Ray of this process that is kept, if one is: before another is started."""
    while _kept:
        with ray_left_open():
            _kept.pop().close()


def inline(app: Any, seed: int = SEED) -> InlinePool:
    """Return an inline pool that runs a program."""
    pool = InlinePool(seed)
    pool.load(app)
    return pool


def _ray_pool() -> Any:
    """Start Ray with workers that find what the examples bring along, as `--config-dir` would."""
    from sim.workers.ray_pool import RayPool

    with ray_left_open(), pytest.MonkeyPatch.context() as patch:
        for folder in (ROOT / "examples").iterdir():
            patch.syspath_prepend(folder)
        pool = RayPool(SEED, MOST_WORKERS)
        pool._starting.result()
    return pool


@contextmanager
def ray_left_open() -> Iterator[None]:
    """Ray forgets to close the /dev/null it gives its processes, and to wait for their end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


# --- our own clients ---


HANDLERS = (*DistillationStrategy.handlers, *ParameterGossip.handlers, RELAY)
"""All that ship and need no numbers."""


def handlers_of(strategy: Any) -> list[Handler]:
    """Return a strategy's own, as `run.py` does."""
    return [*(told(strategy, "handlers") or ())]


def simulated(clients: SimulatedClients, strategy: Any = None) -> SimulatedApp:
    """Return a program that knows a strategy's messages; without one, all that ship."""
    return SimulatedApp(clients, HANDLERS if strategy is None else handlers_of(strategy))


def tiny_clients(
    num_clients: int = 5, partitions: Sequence[Any] | None = None, **changes: Any
) -> SimulatedClients:
    """Clients of two architectures in turn on 120 private, 30 proxy and 50 test examples."""
    splits = split(
        *blobs(num_examples=200, seed=1),
        proxy_share=0.2,
        proxy_source=None,
        limit=None,
        proxy_limit=None,
        rng=generator(SEED, Purpose.SPLIT),
    )
    cut = np.array_split(np.arange(len(splits.private)), num_clients)
    settings: dict[str, Any] = {
        "splits": splits,
        "partitions": cut if partitions is None else partitions,
        "architectures": [("linear", "mlp")[k % 2] for k in range(num_clients)],
        "models": {"linear": logistic_regression, "mlp": partial(mlp, hidden=(8,))},
        "student": logistic_regression,
        "train": trainer(),
        "seed": SEED,
    }
    return SimulatedClients(**(settings | changes))


def trainer() -> Any:
    """Two epochs of plain SGD."""
    sgd = partial(torch.optim.SGD, lr=0.1)
    return partial(train, epochs=2, batch_size=16, optimizer=sgd)


TWIN_EXAMPLES = np.full(32, 3)
"""One example 32 times over: whatever their order, two clients that have it are equal."""


def everyone() -> Any:
    """One program for several populations, told apart by their size; see `populations`."""
    return _Everyone()


def populations() -> dict[int, SimulatedClients]:
    """Return a lone client, two equal ones, and five of two architectures."""
    twins = {"architectures": ["linear", "linear"]}
    return {
        1: tiny_clients(1),
        2: tiny_clients(2, [TWIN_EXAMPLES, TWIN_EXAMPLES], **twins),
        5: tiny_clients(5),
    }


class _Everyone:
    def __init__(self) -> None:
        self._foreign = foreign_app()
        self._ours = {size: simulated(clients) for size, clients in populations().items()}

    def __call__(self, message: Message, context: Context) -> Message:
        names = set(message.content.array_records.get("arrays", {}))
        ours = not names or any(name.startswith("classifier") for name in names)
        size = int(context.node_config["num-partitions"])
        return (self._ours[size] if ours else self._foreign)(message, context)


def named(probes: Sequence[Any]) -> dict[str, Any]:
    """Name probes as a config would."""
    return {f"probe{number}": probe for number, probe in enumerate(probes)}


# --- running them ---


def student_of(clients: SimulatedClients) -> torch.nn.Module:
    """Build the student of round 0."""
    private = clients.splits.private
    rng = generator(SEED, Purpose.STUDENT)
    return build(clients.student, private.task, rng)


def distillation(clients: SimulatedClients, **changes: Any) -> DistillationStrategy:
    """Uniform ensemble distillation with some parts changed."""
    from clients.training.losses import kl

    parts: dict[str, Any] = {
        "student": student_of(clients),
        "proxy": clients.splits.proxy,
        "test": clients.splits.test,
        "distil": trainer(),
        "seed": SEED,
        "scorer": uniform,
        "combiner": mean_of_probs,
        "loss": kl,
    }
    strategy: DistillationStrategy = whole(DistillationStrategy, parts | changes)
    return strategy


@dataclass
class Run:
    """What a run came to."""

    arrays: ArrayRecord
    grid: PoolGrid
    reports: list[RoundReport] = field(default_factory=list)

    @property
    def parameters(self) -> dict[str, Any]:
        """The final parameters as numpy arrays."""
        return read_arrays(self.arrays)

    @property
    def sha256(self) -> str:
        """Hash of the final parameters."""
        return sha256_of_arrays(self.parameters)

    def cohorts(self) -> list[list[int]]:
        """Who was asked to train, by round."""
        return [
            [e.client_id for e in report.exchanges if e.phase.startswith("train")]
            for report in self.reports
        ]


def grid_over(pool: Pool, size: int = 4) -> PoolGrid:
    """Put a fresh grid of so many foreign clients over a pool, in round 1."""
    grid = PoolGrid(pool, [f"arch-{k}" for k in range(size)])
    grid.begin_round(1)
    return grid


def vector(*names: str) -> ArrayRecord:
    """Return arrays for the foreign clients: (0, 0) under each name."""
    return ArrayRecord({name: Array(np.zeros(2)) for name in names or ("w",)})


def run_foreign(
    pool: Pool, strategy: Strategy, arrays: ArrayRecord, size: int = 4, **options: Any
) -> Run:
    """Run a strategy over foreign clients, one round unless told otherwise."""
    reports: list[RoundReport] = []
    grid = options.pop("grid", None) or grid_over(pool, size)
    settings: dict[str, Any] = {"rounds": 1, "seed": SEED, "evaluate": lambda arrays: {}}
    settings |= {"report": reports.append} | options
    return Run(run_rounds(strategy, grid, arrays, **settings), grid, reports)


def run_ours(
    pool: Pool, clients: SimulatedClients, strategy: Strategy, rounds: int = 1, **options: Any
) -> Run:
    """Run a strategy over our clients, the student measured on the test set."""
    student = student_of(clients)

    def measure(arrays: ArrayRecord) -> dict[str, float]:
        load_parameters(student, read_arrays(arrays))
        return evaluate(student, clients.splits.test)

    arrays = options.pop("arrays", None) or write_arrays(parameters_of(student))
    grid = options.pop("grid", None) or PoolGrid(pool, clients.architectures)
    settings = {"rounds": rounds, "evaluate": measure, "grid": grid} | options
    return run_foreign(pool, strategy, arrays, **settings)
