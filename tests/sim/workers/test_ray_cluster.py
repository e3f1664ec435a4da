"""A Ray that does not start, or is not to be joined, is one line that names the key."""

import socket
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray
from flwr.serverapp.strategy import FedAvg

from sim.workers import ray_cluster
from sim.workers.ray_cluster import require_answer, start_ray
from sim.workers.ray_pool import RayPool
from tests.federations import SEED, ray_left_open, run_foreign, vector
from tests.foreign_clients import foreign_app

pytestmark = pytest.mark.usefixtures("no_ray")


def raises(error: BaseException) -> Any:
    def init(**options: Any) -> None:
        raise error

    return init


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("no port is free\nsee 20 lines of advice"), "no port is free"),
        (ray.exceptions.RaySystemError("the raylet died"), "System error: the raylet died"),
        (TimeoutError(), "TimeoutError"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_whatever_ray_raises_as_it_starts_is_one_line_that_names_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(ray_cluster, "MOST_PATH", 200)  # that folder is deep
    monkeypatch.setattr(ray, "init", raises(error))
    with pytest.raises(ValueError, match="Ray does not start") as raised:
        start_ray(2, 10**9, None)
    assert str(raised.value) == (
        "sim=ray: Ray does not start with sim.object_store_bytes=1000000000, sim.workers=2 and "
        f"its files in {tmp_path}, where RAY_TMPDIR has them: {said}"
    )
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=r"^sim\.address=nonsense: this Ray cannot be joined: "):
        start_ray(None, None, "nonsense")


def test_a_ray_whose_start_is_interrupted_is_not_explained_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(ray_cluster, "MOST_PATH", 200)
    monkeypatch.setattr(ray, "init", raises(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        start_ray(2, None, None)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_ray_cannot_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/proc/nowhere")
    with pytest.raises(
        ValueError, match="sim=ray: Ray does not start .* in /proc/nowhere, where RAY"
    ):
        start_ray(2, None, None)  # fmt: skip


@pytest.mark.parametrize("name", ["sim.py", "clients/__init__.py"])
def test_a_module_that_would_hide_ours_from_workers_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^sim=ray: {tmp_path / name} would hide ours"):
        start_ray(1, None, None)


def test_ray_is_ones_own_whatever_the_environment_names(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "10.255.255.1:6379")
        patch.setenv("RAY_TMPDIR", str(tmp_path))
        patch.setattr(ray_cluster, "MOST_PATH", 200)

        def init(**options: Any) -> None:
            seen.update(options)
            raise RuntimeError("not here")

        patch.setattr(ray, "init", init)
        with pytest.raises(ValueError, match="Ray does not start"):
            ray_cluster.start_ray(1, None, None)
    assert seen["address"] == "local"


def test_an_address_where_nobody_speaks_grpc_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself tries for many minutes, and hears no signal meanwhile."""
    server = grpc.server(futures.ThreadPoolExecutor(1))  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    require_answer(f"127.0.0.1:{port}")
    require_answer(f"ray://127.0.0.1:{port}")
    server.stop(None).wait()
    with pytest.raises(ValueError, match=rf"sim\.address=127\.0\.0\.1:{port}: no Ray cluster answ"):
        require_answer(f"127.0.0.1:{port}")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        monkeypatch.setattr(socket, "create_connection", lambda to, timeout: connected(to, 0.2))
        with pytest.raises(ValueError, match=f"sim.address={address}: no Ray cluster.* timed out"):
            require_answer(address)


connected = socket.create_connection


@pytest.mark.slow  # another Ray
def test_a_pool_joins_a_ray_of_this_process_and_leaves_it() -> None:
    with ray_left_open():
        folder = ray_cluster.start_ray(2, None, None)
        try:
            pool = RayPool(SEED, 1)
            pool.load(foreign_app())
            run = run_foreign(pool, FedAvg(), vector())
            pool.close()
            assert ray.is_initialized()
        finally:
            ray_cluster.stop_ray(folder)
    assert not [each for each in run.reports[0].exchanges if each.failure]
