"""What listens while a run has a Ray of its own: to nobody who lacks the run's token."""

import http.client
import os
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from ray._private.node import Node

from sim.workers.ray_cluster import UNUSED
from sim.workers.ray_pool import RayPool
from sim.workers.ray_together import Together
from tests.federations import SEED, ray_left_open
from tests.foreign_clients import foreign_app

METHODS = (
    "InternalKVGcsService/InternalKVKeys",
    "JobInfoGcsService/GetAllJobInfo",
    "NodeManagerService/GetSystemConfig",
    "ObjectManagerService/FreeObjects",
    "CoreWorkerService/GetCoreWorkerStats",
)
"""Of each of Ray's services one that an empty request would be answered by."""


@pytest.fixture(scope="module")
def ray_of_ours(no_ray: None) -> Iterator[RayPool]:
    with ray_left_open():
        pool = RayPool(SEED, workers=2)
        pool.load(foreign_app())
        pool.size()
    yield pool
    with ray_left_open():
        pool.close()


def tree() -> list[int]:
    """This process and all below it."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [os.getpid()]
    for process in found:
        found += parents.get(process, [])
    return found


def listeners(processes: list[int]) -> set[tuple[str, int]]:
    """Addresses and ports at which some processes listen."""
    own = set()
    for process in processes:
        for file in Path("/proc").glob(f"{process}/fd/*"):
            with suppress(OSError):  # it has been closed
                own.add(os.readlink(file))
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                address, _, port = fields[1].partition(":")
                raw = bytes.fromhex(address)  # words of four bytes, each the wrong way round
                words = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
                family = socket.AF_INET if name == "tcp" else socket.AF_INET6
                found.add((socket.inet_ntop(family, words), int(port, 16)))
    return found


def refusals(address: str, port: int) -> set[str]:
    """What each of Ray's services, and HTTP, say to somebody without a token."""
    host = "127.0.0.1" if address == "::" else address
    said = set()
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        for method in METHODS:
            try:
                channel.unary_unary(f"/ray.rpc.{method}")(b"", timeout=10)
                said.add(f"{method} answered")
            except grpc.RpcError as error:
                said.add(error.code().name)
    if said == {"UNAVAILABLE"}:  # no gRPC
        connection = http.client.HTTPConnection(host, port, timeout=10)
        connection.request("POST", "/get_or_create_runtime_env", b"")
        said = {str(connection.getresponse().status)}
        connection.close()
    return said


def outside(found: set[tuple[str, int]]) -> set[tuple[str, int]]:
    return {place for place in found if place[0] not in ("127.0.0.1", "::1")}


@pytest.mark.timeout(120)
def test_nobody_without_the_token_gets_an_answer(ray_of_ours: RayPool) -> None:
    open_to_all = outside(listeners(tree()))
    assert len(open_to_all) >= 5  # the store of the cluster, raylet, driver, workers
    for address, port in open_to_all:
        said = refusals(address, port)
        assert said in ({"401"}, {"UNAUTHENTICATED", "UNIMPLEMENTED"}), (address, port)


def environment(*, device: str) -> dict[str, str]:
    return dict(os.environ)


@pytest.mark.timeout(120)
def test_the_token_is_in_the_workers_environment_only(ray_of_ours: RayPool) -> None:
    import ray

    given = ray.get(ray_of_ours.call(0, environment))
    assert given["RAY_AUTH_MODE"] == "token"
    assert re.fullmatch("[0-9a-f]{64}", token := given["RAY_AUTH_TOKEN"])
    assert not [name for name in os.environ if name.startswith("RAY_AUTH_")]
    said = [Path(f"/proc/{process}/cmdline").read_bytes() for process in tree()]
    assert not [line for line in said if token.encode() in line]
    folder = ray_of_ours._folder
    assert folder is not None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if token.encode() in path.read_bytes()]
    assert list(folder.glob("r/session_*/sockets/plasma_store"))


def test_ray_starts_nothing_that_a_run_does_not_need(ray_of_ours: RayPool) -> None:
    lines = [Path(f"/proc/{process}/cmdline").read_bytes() for process in tree()]
    assert any(b"gcs_server" in line for line in lines)
    of_no_use = (b"log_monitor.py", b"monitor.py", b"dashboard.py")
    assert not [line for line in lines if any(name in line for name in of_no_use)]
    assert all(getattr(Node, name).__module__ == Node.__module__ for name in UNUSED)  # put back


def at_the_meeting(link: Any, *, device: str) -> set[tuple[str, int]]:
    """Where this worker listens once it is linked to the others."""
    return listeners([os.getpid()])


@pytest.mark.timeout(120)
def test_links_between_workers_of_this_machine_are_not_to_be_reached_from_elsewhere(
    ray_of_ours: RayPool,
) -> None:
    before = outside(listeners(tree()))
    together = Together(ray_of_ours, 60.0, lambda story: None)
    met = together.run(2, at_the_meeting, what=str)
    assert all("127.0.0.1" in dict(places) for places in met)
    assert set().union(*map(outside, met)) <= before
    assert outside(listeners(tree())) == before  # the store of the meeting too


@pytest.mark.slow  # another Ray
@pytest.mark.timeout(120)
def test_another_ray_has_another_token_and_leaves_nothing(ray_of_ours: RayPool) -> None:
    import ray
    from ray._raylet import AuthenticationMode, get_authentication_mode

    first, folder = ray.get(ray_of_ours.call(0, environment)), ray_of_ours._folder
    with ray_left_open():
        ray_of_ours.close()
    assert folder is not None
    assert not folder.exists()
    assert get_authentication_mode() == AuthenticationMode.DISABLED
    with ray_left_open():
        pool = RayPool(SEED, workers=1)
        pool.load(foreign_app())
        second = ray.get(pool.call(0, environment))
        pool.close()
    assert first["RAY_AUTH_TOKEN"] != second["RAY_AUTH_TOKEN"]
