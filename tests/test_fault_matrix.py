"""One hash: on any pool, whichever worker is killed, wherever the driver is killed and resumed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sim.workers.pools import Pool
from tests.faults import (
    KILLS,
    METHODS,
    ROUNDS,
    WritePoints,
    hash_of_run,
    killed_and_resumed,
)
from tests.federations import inline, open_pool

POINTS = WritePoints()
MANY = 10_000


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("orders")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, orders: Path) -> dict[str, str]:
    """What comes of each method inline, undisturbed."""
    folders = {method: tmp_path_factory.mktemp(method) for method in METHODS}
    return {m: hash_of_run(inline(None), m, folders[m], orders) for m in METHODS}


@pytest.fixture(scope="module", params=[1, 2, 4])
def ray_pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    with open_pool("ray", None, request.param) as pool:
        yield pool


def test_the_runs_are_worth_comparing(reference: dict[str, str], tmp_path: Path) -> None:
    assert len({*reference.values()}) == len(METHODS)
    shorter = hash_of_run(inline(None), "dlad", tmp_path, tmp_path, rounds=1)
    assert shorter != reference["dlad"]


@pytest.mark.parametrize("method", METHODS)
def test_undisturbed_the_bits_are_those_of_the_inline_pool(
    ray_pool: Pool, method: str, reference: dict[str, str], orders: Path, tmp_path: Path
) -> None:
    assert hash_of_run(ray_pool, method, tmp_path, orders) == reference[method]


def assert_killed_and_same(
    pool: Pool, method: str, kills: tuple[str, ...], reference: dict[str, str], *folders: Path
) -> None:
    """Run with workers killed."""
    orders, folder = folders
    for kill in kills:
        (orders / kill).touch()
    assert hash_of_run(pool, method, folder, orders) == reference[method]
    assert not any(orders.iterdir())  # they did die


@pytest.mark.slow  # `make matrix` does it fifty times
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ray_pool", [2], indirect=True)
def test_killed_workers_change_no_bit(
    ray_pool: Pool, method: str, reference: dict[str, str], orders: Path, tmp_path: Path
) -> None:
    """Three in one run; each on its own, and on one and four workers, with the slow tests."""
    assert_killed_and_same(ray_pool, method, KILLS, reference, orders, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_worker_changes_no_bit(
    ray_pool: Pool,
    method: str,
    kill: str,
    reference: dict[str, str],
    orders: Path,
    tmp_path: Path,
) -> None:
    assert_killed_and_same(ray_pool, method, (kill,), reference, orders, tmp_path)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_driver_killed_wherever_it_writes_goes_on_to_the_same_bits(
    method: str, step: int, reference: dict[str, str], orders: Path, tmp_path: Path
) -> None:
    pool, at, commits = inline(None), -step + METHODS.index(method) + 1, list[int | None]([0])
    while commits[-1] is not None:
        at += step
        left, found = killed_and_resumed(pool, method, tmp_path / str(at), orders, POINTS, at)
        assert found == reference[method], at
        commits.append(left)
    assert at > 20  # or hardly anything was a point
    assert {0, 1, ROUNDS} <= {*commits}  # it did go on from what was there


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ray_pool", [2], indirect=True)
def test_a_driver_killed_on_ray_goes_on_to_the_same_bits(
    ray_pool: Pool, method: str, reference: dict[str, str], orders: Path, tmp_path: Path
) -> None:
    with POINTS.killing(tmp_path / "whole", MANY):
        (tmp_path / "whole").mkdir()
        hash_of_run(ray_pool, method, tmp_path / "whole", orders)
        points = POINTS.seen
    for at in (points // 2, points - 3):  # of the first round's commit, and of the last one's
        run = tmp_path / str(at)
        left, found = killed_and_resumed(ray_pool, method, run, orders, POINTS, at)
        assert left, at  # a commit
        assert found == reference[method], at
