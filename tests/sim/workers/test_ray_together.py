"""Workers that run something together: which of Ray's errors is a loss, and which an end."""

from typing import Any

import pytest
from ray import exceptions

from sim.errors import PoolLost
from sim.workers import ray_cluster, ray_together
from sim.workers.ray_pool import RayPool
from sim.workers.ray_together import Together, WorkersLost


class Two:
    """Two workers that answer with what they are told; a Ray that ends when it is told to."""

    def __init__(self) -> None:
        self.replaced: list[int] = []
        self.ended = False

    def size(self) -> int:
        return 2

    def gather(self, size: int, timeout_s: float) -> None: ...

    def call(self, rank: int, function: Any, *arguments: Any) -> Any:
        return rank

    def replace(self, rank: int) -> None:
        self.replaced.append(rank)

    def look(self) -> None:
        if self.ended:
            raise PoolLost("Ray itself has ended")

    def host(self) -> str:
        return "127.0.0.1"

    def own_gpus(self) -> bool:
        return False


def run(monkeypatch: pytest.MonkeyPatch, *answers: Any, workers: Two | None = None) -> Any:
    """Run something; answers come one after the other, None is nothing within the time to wait."""
    left, told = list(answers), list[str]()

    def wait(running: list[int], num_returns: int, timeout: float) -> Any:
        return (running[:1], running[1:]) if left.pop(0) is not None else ([], running)

    def get(rank: int) -> Any:
        found = answers[len(answers) - len(left) - 1]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(ray_together.ray, "wait", wait)
    monkeypatch.setattr(ray_together.ray, "get", get)
    together = Together(workers or Two(), 1e-9, told.append)
    return together.run(2, print, what=lambda lost: f"{sorted(lost)} lost"), told


DEATH = exceptions.ActorDiedError()


def test_a_death_is_a_loss_and_all_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Two()
    found, told = run(monkeypatch, DEATH, "b", "a", "b", workers=workers)
    assert (found, workers.replaced) == (["a", "b"], [0])
    assert "[0] lost: its worker died" in told[0]
    with pytest.raises(WorkersLost, match="4 times in a row"):
        run(monkeypatch, *[DEATH, "b"] * 4)


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ObjectStoreFullError("no room"),
        exceptions.OutOfDiskError("no disk"),
        exceptions.RaySystemError(ValueError("no such class"), "Traceback ..."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_no_workers_death_ends_the_run_in_a_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    workers = Two()
    with pytest.raises(PoolLost, match=f"^sim=ray: {type(error).__name__}: "):
        run(monkeypatch, "a", error, workers=workers)
    assert workers.replaced == []


@pytest.mark.parametrize("answers", [[None], [DEATH]], ids=["silence", "death"])
def test_a_ray_that_has_ended_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, answers: list[Any]
) -> None:
    workers = Two()
    workers.ended = True
    with pytest.raises(PoolLost, match="Ray itself has ended"):
        run(monkeypatch, *answers, workers=workers)
    assert workers.replaced == []


def test_silence_before_anybody_is_lost_is_no_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, None, None, "a", None, "b", "a", "b")[0] == ["a", "b"]


def test_a_pool_looks_for_the_ray_that_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    pool: Any = RayPool.__new__(RayPool)
    monkeypatch.setattr(ray_cluster, "ray_ended", lambda: True)
    pool._private = False
    pool.look()
    pool._private = True
    with pytest.raises(PoolLost, match="^sim=ray: Ray itself has ended on this machine$"):
        pool.look()
