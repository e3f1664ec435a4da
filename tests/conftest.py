"""Fixtures that every test of the engine shares."""

import gc
import os
import signal
from collections.abc import Iterator

# Before torch is imported. Two test processes share two cores: threads that wait for each other
# there spin, and a small network's step took up to ten times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from clients.messages.requests import NODE_ID_BASE
from sim.workers.pools import Pool
from sim.workers.process_setup import assume_task_identity
from tests.federations import close_kept_pool, everyone, open_pool
from tests.foreign_clients import foreign_app

# Whatever is begun in the background ignores ctrl-C, and so would all that it begins.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _task_identity() -> None:
    """Let tests build Flower messages; in a run the grid sees to it."""
    assert NODE_ID_BASE > 1  # 0 and 1 are Flower's own
    assume_task_identity(run_id=1)


OWN_RAY = ("test_ray_cluster", "test_strangers", "test_two_nodes")
"""Modules that start a Ray of their own: before one is kept, which they would end."""

LONGEST = (
    *(
        "test_ray_group_training",
        "test_run",
        "test_options",
        "test_options_compose",
        "test_peer_round",
    ),
    *("test_killed_runs", "test_pools", "test_fault_matrix", "test_tasks", "test_examples"),
    *("test_fuzz", "test_batched_loop", "test_house", "test_user_rules", "test_bits"),
    *(
        "test_flower_engine",
        "test_stop_signals",
        "test_renamed",
        "test_nobody_trains",
        "test_models",
    ),
)
"""Modules that take longest: early, or one process is at one when the others have nothing left."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring modules into the order in which processes that share them end together."""
    places = {name: place for place, name in enumerate((*OWN_RAY, *LONGEST))}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def pytest_collection_finish() -> None:
    """What is there by now stays: Flower, for one, has all of it looked at in many a round."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Hypothesis asks who refers to what."""
    gc.unfreeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What needs a GPU is skipped where torch sees none."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a GPU: torch sees none here")


@pytest.fixture(scope="session", autouse=True)
def _end_of_ray() -> Iterator[None]:
    """The Ray that tests share ends with the last of them."""
    yield
    close_kept_pool()


@pytest.fixture(scope="module")
def no_ray() -> None:
    """For modules that start a Ray of their own."""
    close_kept_pool()


@pytest.fixture(scope="module", params=["inline", "ray"])
def pool_kind(request: pytest.FixtureRequest) -> str:
    """Every behaviour of a pool is tested on both."""
    return str(request.param)


@pytest.fixture(scope="module")
def foreign_pool(pool_kind: str) -> Iterator[Pool]:
    """A pool of clients written against Flower alone; loaded once per module and kind."""
    with open_pool(pool_kind, foreign_app()) as pool:
        yield pool


@pytest.fixture(scope="module")
def everyone_pool(pool_kind: str) -> Iterator[Pool]:
    """A pool for foreign and for our own clients; not beside `foreign_pool` in one module."""
    with open_pool(pool_kind, everyone()) as pool:
        yield pool
