"""A cluster of two nodes: the bits are those of one process, also where a node is lost."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from sim.workers.ray_pool import RayPool
from tests.faults import MACHINE, METHODS, hash_of_run
from tests.federations import SEED, inline, ray_left_open

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def cluster(no_ray: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of one CPU each, of which this process is on the first."""
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    node = {"num_cpus": 1, "object_store_memory": 200 << 20}
    with ray_left_open():
        found = Cluster(initialize_head=True, head_node_args=node)
        found.add_node(**node)
        yield found
        ray.shutdown()
        found.shutdown()


def raylet_of(node: Any) -> int:
    """Return the id of Ray's own process on a node."""
    (raylet,) = node.all_processes["raylet"]
    return int(raylet.process.pid)


@pytest.mark.parametrize("lost", [False, True], ids=["undisturbed", "lost"])
@pytest.mark.parametrize("method", METHODS)
def test_a_lost_node_changes_no_bit(
    cluster: Any, method: str, lost: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    orders, alone, spread = tmp_path / "orders", tmp_path / "alone", tmp_path / "spread"
    for folder in (orders, alone, spread):
        folder.mkdir()
    expected = hash_of_run(inline(None), method, alone, orders)
    (second,) = cluster.list_all_nodes()[1:]
    if lost:
        (orders / MACHINE).write_text(str(raylet_of(second)))
    pool = RayPool(SEED, 2, address=cluster.address)
    try:
        assert hash_of_run(pool, method, spread, orders) == expected
    finally:
        pool.close()
    assert not any(orders.iterdir())  # it did happen
    # Ray may tell of the way to its workers before it knows that a node is dead.
    told = capfd.readouterr().err.count("lost: what it had is run again")
    assert bool(told) == lost
    assert os.getpid() != raylet_of(second)


def test_it_is_said_that_others_have_all_cpus_and_goes_on_when_one_is_free(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders, names, said = tmp_path / "orders", ["first", "second"], list[str]()
    orders.mkdir()
    with others_cpus(cluster.address, names):
        monkeypatch.setattr("sim.workers.ray_pool.SAY_AFTER_S", 1.0)

        def free_one(text: str, **options: Any) -> None:
            said.append(text)
            if len(said) == 1:
                ray.kill(ray.get_actor(names.pop(), namespace="others"))

        monkeypatch.setattr("sim.workers.ray_workers.print", free_one, raising=False)
        pool = RayPool(SEED, 1, address=cluster.address)
        try:
            assert len(hash_of_run(pool, "gossip", tmp_path, orders)) == 64
        finally:
            pool.close()
    about = "sim=ray: 0 of 1 workers are up after 1 s; 0 of Ray's 2 CPUs are free: still waiting"
    assert said[0] == about


@contextmanager
def others_cpus(address: str, names: list[str]) -> Iterator[None]:
    """Take a CPU for each name, as another user of the cluster would."""

    @ray.remote(num_cpus=1, lifetime="detached", namespace="others")
    class Hog:
        def up(self) -> int:
            return os.getpid()

    with ray_left_open():
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        ray.get([Hog.options(name=name).remote().up.remote() for name in names])  # type: ignore[attr-defined]
        ray.shutdown()
    yield
