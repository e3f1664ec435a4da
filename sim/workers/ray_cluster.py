"""Ray itself: starting or joining it, what our actors are given, how many it has room for."""

import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

# Without this Ray warns, at every start, of a change to come that concerns GPUs we did not ask for.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray._private.node import Node
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from sim.errors import PoolLost

LOOK_EVERY_S = 2.0
"""How often it is looked whether Ray is still there; a call of Ray's would wait 60 s for it."""

ENDED = "sim=ray: Ray itself has ended on this machine"

TUNABLES = "glibc.malloc.hugetlb=1"
"""For workers' `GLIBC_TUNABLES`: huge pages, which only a fresh process can be given."""

MOST_PATH = 107 - len(
    "/ray-12345678/r/session_2026-01-31_12-00-00_123456_4194304/sockets/plasma_store"
)
"""Length of a folder that Ray's folder can be made in: Linux's limit is on the sockets in it."""

UNUSED = ("start_log_monitor", "start_monitor", "start_api_server")
"""By which a `Node` of Ray's starts what prints logs, adds machines, answers `ray list`: 270 MB,
2.5 CPU seconds of its start, 1 s of its end."""

SETTINGS = b"\x04"
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + SETTINGS + b"\0" * 5
"""What a client of gRPC, that is of HTTP/2, says first; a frame of settings is the answer."""


def require_answer(address: str | None) -> None:
    """Raise ValueError if no cluster listens at a host:port; other addresses are Ray's to judge."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():  # Ray itself would try for minutes
        try:
            with socket.create_connection((host, int(port)), timeout=5) as connection:
                if not os.environ.get("RAY_USE_TLS"):
                    connection.sendall(GREETING)
                    if connection.recv(9)[3:4] != SETTINGS:  # Ray's servers all speak gRPC
                        raise OSError("what listens there is something else")
        except OSError as error:
            raise ValueError(f"sim.address={address}: no Ray cluster answers: {error}") from error


def require_unhidden(folder: Path) -> None:
    """Refuse a folder whose modules would hide ours: Ray's workers look where one stands first.

    Args:
        folder: Where one stands.

    Raises:
        ValueError: Names the file.
    """
    house = Path(__file__).parents[2]
    for name in ("clients", "sim", "strategies"):
        for path in (folder / f"{name}.py", folder / name / "__init__.py"):
            if path.is_file() and not path.samefile(house / name / "__init__.py"):
                raise ValueError(
                    f"sim=ray: {path} would hide ours of that name from the workers, which look "
                    "for modules where one stands: give it another name, or begin elsewhere"
                )


def start_ray(
    workers: int | None, object_store_bytes: int | None, address: str | None, threads: int = 1
) -> Path | None:
    """Start a private Ray, or join the cluster at an address.

    A private one listens on all interfaces, as Ray does: nobody without its token gets an answer.

    Args:
        workers: How many processes it is to have room for; None = one per core.
        object_store_bytes: Of its store; None = its own choice.
        address: Of the cluster; None = a private one.
        threads: Of each worker.

    Returns:
        The folder of a private one, for `stop_ray`.

    Raises:
        ValueError: It does not start, or is not to be joined; says with which settings.
    """
    require_unhidden(Path.cwd())
    folder = None
    try:
        folder = None if address else _folder_of_ours()
        own = nullcontext() if address else _without_unused_processes()
        with own, _inherited({} if address else {**worker_environment(threads), **_secret()}):
            _read_secret()
            ray.init(
                object_store_memory=object_store_bytes,
                address=address or "local",  # None would join whatever $RAY_ADDRESS names
                num_cpus=None if address else workers,
                include_dashboard=False if address is None else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=None if folder is None else str(folder / "r"),
            )
    except BaseException as error:
        stop_ray(folder)
        if not isinstance(error, Exception):
            raise
        # Ray raises whatever it likes, of any class and of many lines.
        story = next(iter(str(error).split("\n")), "") or type(error).__name__
        if address:
            raise ValueError(
                f"sim.address={address}: this Ray cannot be joined: {story}"
            ) from error
        store = f"sim.object_store_bytes={object_store_bytes}, " if object_store_bytes else ""
        raise ValueError(
            f"sim=ray: Ray does not start with {store}"
            f"sim.workers={workers} and its files in {_home()}, where RAY_TMPDIR has them: {story}"
        ) from error
    return folder


def ray_ended() -> bool:
    """Tell whether the Ray that this process started has ended: without these two nothing runs."""
    node = ray._private.worker._global_node
    if node is None:
        return False
    return any(kind in ("gcs_server", "raylet") for kind, _ in node.dead_processes())


def require_ray() -> None:
    """Raise PoolLost if the Ray that this process started has ended."""
    if ray_ended():
        raise PoolLost(ENDED)


def stop_ray(folder: Path | None) -> None:
    """End what `start_ray` started, with its folder and its secret, or leave the cluster."""
    ray.shutdown()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
        _read_secret()


def _folder_of_ours() -> Path:
    """Make a folder that nobody else can enter; Ray opens to all the one that it is given."""
    return Path(tempfile.mkdtemp(prefix="ray-", dir=_home()))


def _home() -> str:
    home = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    return home if len(home) <= MOST_PATH else "/tmp"


def _secret() -> dict[str, str]:
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _read_secret() -> None:
    """Have Ray look at the environment, which it otherwise does but once, as it is imported."""
    AuthenticationTokenLoader.instance().reset_cache()
    Config.initialize("")


def worker_environment(threads: int) -> dict[str, str]:
    """Return what a worker process must find in its environment as it starts."""
    # Workers must find the same modules, user files included, as this process does; ours first.
    ours, here = str(Path(__file__).parents[2]), os.getcwd()  # which "" stands for, in a notebook
    paths = os.pathsep.join([ours, *(path or here for path in sys.path)])
    return {"PYTHONPATH": paths, "OMP_NUM_THREADS": str(threads), "GLIBC_TUNABLES": TUNABLES}


@contextmanager
def _without_unused_processes() -> Iterator[None]:
    """Have a Ray that is started in the block start nothing that is of no use to a run."""
    before = {name: getattr(Node, name) for name in UNUSED if hasattr(Node, name)}
    for name in before:
        setattr(Node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, start in before.items():
            setattr(Node, name, start)


@contextmanager
def _inherited(environment: dict[str, str]) -> Iterator[None]:
    """Put variables into this process's environment for the block, for processes begun in it."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def worker_options(
    threads: int, device: str, gpus_per_worker: float, private: bool
) -> dict[str, Any]:
    """Return Ray's options for an actor of ours.

    Args:
        threads: Of the process.
        device: "cpu" or "cuda".
        gpus_per_worker: Share of a GPU on "cuda".
        private: Whether `start_ray` started this Ray for it. Then its processes have the right
            environment from the start; told to Ray, it would start others instead, 1 s later.

    Returns:
        Arguments of `ray.remote`.
    """
    options: dict[str, Any] = {"num_cpus": 1}
    if not private:
        options["runtime_env"] = {"env_vars": worker_environment(threads)}
    if device != "cpu":
        options["num_gpus"] = gpus_per_worker
    return options


def room_for(device: str, gpus_per_worker: float, free: bool) -> int:
    """Count the workers that the cluster, or what is free of it, has cores or GPUs for."""
    there: dict[str, float] = (ray.available_resources if free else ray.cluster_resources)()  # type: ignore[no-untyped-call]
    room = there.get("CPU", 0) if device == "cpu" else there.get("GPU", 0) / gpus_per_worker
    if room < 1:
        found = ", ".join(f"{there.get(kind, 0):.0f} {kind}s" for kind in ("CPU", "GPU"))
        raise ValueError(f"sim.device={device}: Ray has no room for a worker, only {found} free")
    return int(room)
