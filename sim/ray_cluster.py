"""Ray itself: starting or joining it, what our actors are given, how many it has room for."""

import logging
import os
import socket
import sys
from typing import Any

# Without this Ray warns, at every start, of a change to come that concerns GPUs we did not ask for.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

from sim.processes import TUNABLES


def require_answer(address: str | None) -> None:
    """Raise ValueError if no cluster listens at a host:port; other addresses are Ray's to judge."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():  # Ray itself would try for minutes
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError as error:
            raise ValueError(f"sim.address={address}: no Ray cluster answers: {error}") from error


def start_ray(workers: int | None, object_store_bytes: int | None, address: str | None) -> None:
    """Start a private Ray, or join the cluster at an address."""
    ray.init(
        object_store_memory=object_store_bytes,
        address=address or "local",  # None would join whatever $RAY_ADDRESS names
        num_cpus=None if address else workers,
        include_dashboard=False if address is None else None,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def worker_options(threads: int, device: str, gpus_per_worker: float) -> dict[str, Any]:
    """Return Ray's options for an actor of ours.

    Args:
        threads: Of the process.
        device: "cpu" or "cuda".
        gpus_per_worker: Share of a GPU on "cuda".

    Returns:
        Arguments of `ray.remote`.
    """
    # Workers must find the same modules, user files included, as this process does.
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {
        "PYTHONPATH": paths,
        "OMP_NUM_THREADS": str(threads),
        "GLIBC_TUNABLES": TUNABLES,
    }
    options: dict[str, Any] = {"num_cpus": 1, "runtime_env": {"env_vars": environment}}
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
