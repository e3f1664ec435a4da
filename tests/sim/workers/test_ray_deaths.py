"""Which of Ray's errors are a worker's loss, told by stubs: no Ray is started."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray
from ray import exceptions

from sim.errors import PoolLost
from sim.workers import ray_cluster, ray_dispatch, ray_pool
from sim.workers.quarantine import Suspects
from sim.workers.ray_deaths import cause_of
from sim.workers.ray_dispatch import LOSSES, Dispatch
from sim.workers.ray_pool import RayPool
from sim.workers.tasks import Answer, Group, Outcome, Task


class Workers:
    """One worker that is never lost, but replaced; calls give numbers."""

    def __init__(self) -> None:
        self.ready, self.loading, self.broken = {0}, dict[Any, int](), ""
        self.actors, self.run = [self], self
        self.replaced = self.calls = 0

    def options(self, num_returns: int) -> "Workers":
        return self

    def remote(self, bare: Group, *handles: Any) -> list[Any]:
        self.calls += 1
        return [(self.calls, bare), *(None for _ in bare.tasks)]

    def say_if_waiting(self) -> float:
        return 1.0

    def replace(self, place: int) -> None:
        self.replaced += 1
        self.loading = {"up": 0}

    def loaded(self, answer: Any) -> int:
        self.loading = {}
        return 0


def outcome_of(group: Group) -> Outcome:
    nothing = [None] * len(group.tasks)
    return Outcome(group.number, [Answer(t.client_id, None) for t in group.tasks], nothing, nothing)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a group of so many clients; the first calls come to these errors."""

    def run(*errors: BaseException, size: int = 1, **options: Any) -> tuple[Any, Workers]:
        workers = Workers()

        def get(answer: tuple[int, Group]) -> Outcome:
            call, group = answer
            if call <= len(errors):
                raise errors[call - 1]
            return outcome_of(group)

        def wait(answers: list[Any], **how: Any) -> tuple[list[Any], list[Any]]:
            return answers[:1], answers[1:]

        monkeypatch.setattr(ray, "get", get)
        monkeypatch.setattr(ray, "wait", wait)
        about: Any = SimpleNamespace(message_type="train")
        tasks = tuple(Task(client, 0, about) for client in range(size))
        groups = [Group(0, tasks, size, 1, lambda request, reply: None, states=(None,) * size)]
        settings: dict[str, Any] = {"client_timeout_s": None, "secure": list} | options
        made = Dispatch(workers, Suspects(), groups, **settings)  # type: ignore[arg-type]
        [outcome] = made.outcomes()
        return [answer.failure for answer in outcome.answers], workers

    return run


GONE = (
    exceptions.ActorDiedError(),
    exceptions.WorkerCrashedError(),
    exceptions.OutOfMemoryError("out of memory"),
)


@pytest.mark.parametrize("death", GONE, ids=lambda death: type(death).__name__)
def test_a_dead_worker_is_replaced_and_what_kills_two_is_quarantined(
    run: Any, death: Exception
) -> None:
    failures, workers = run(death)
    assert (failures, workers.replaced) == ([""], 1)
    failures, workers = run(death, death)
    assert workers.replaced == 2
    assert failures[0].startswith("quarantined: its worker died 2 times running it alone: ")


@pytest.mark.parametrize(
    "error",
    [exceptions.ObjectStoreFullError("no room"), exceptions.OutOfDiskError("no room")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("here", [False, True])
def test_a_full_store_or_disk_ends_the_run_in_its_own_words_and_kills_no_worker(
    run: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, here: bool
) -> None:
    def put(what: Any) -> None:
        raise error

    replaced: list[int] = []
    monkeypatch.setattr(Workers, "replace", lambda self, place: replaced.append(place))
    with pytest.raises(PoolLost, match=rf"^sim=ray: {type(error).__name__}: no room The ") as said:
        run(*(() if here else (error,)), secure=put if here else list)
    assert "\n" not in str(said.value)
    assert not replaced
    monkeypatch.setattr(ray, "put", put)
    with pytest.raises(PoolLost, match="no room"):
        RayPool.keep(cast(RayPool, None), b"state")


def test_an_answer_that_cannot_be_read_here_is_its_clients_failure(run: Any) -> None:
    odd = exceptions.RaySystemError(ValueError("no such class"), "Traceback ...")
    failures, workers = run(odd)
    assert failures == ["it cannot be run, or its reply not be sent"]
    failures, workers = run(odd, odd, size=3)  # cut up: the first of them is the odd one
    assert failures == ["it cannot be run, or its reply not be sent", "", ""]
    assert workers.replaced == 0


@pytest.mark.parametrize("one_machine", [False, True])
def test_a_dropped_connection_is_told_as_one_and_nobody_is_to_blame(
    run: Any, capfd: pytest.CaptureFixture[str], one_machine: bool
) -> None:
    away = exceptions.ActorUnavailableError("RpcError: broken pipe", None)
    failures, workers = run(*[away] * LOSSES, one_machine=one_machine)
    said = capfd.readouterr().err.splitlines()
    assert said == ["sim=ray: the connection to a worker was lost: what it had is run again"] * 5
    assert (failures, workers.replaced) == ([""], LOSSES)
    assert cause_of(away) == "the connection to it was lost"


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (exceptions.ActorUnavailableError("broken pipe", None), True),
        (exceptions.NodeDiedError("gone"), False),
        (exceptions.LocalRayletDiedError(), False),
    ],
)
def test_the_only_machine_is_lost_with_ray(
    run: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, ended: bool
) -> None:
    monkeypatch.setattr(ray_cluster, "ray_ended", lambda: ended)
    with pytest.raises(PoolLost, match="^sim=ray: Ray itself has ended on this machine$"):
        run(error, one_machine=True)


def test_a_ray_that_has_ended_is_noticed_while_workers_still_answer(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(one_machine=True)[0] == [""]
    monkeypatch.setattr(ray_dispatch, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(ray_cluster, "ray_ended", iter([False, True]).__next__)
    with pytest.raises(PoolLost, match="^sim=ray: Ray itself has ended on this machine$"):
        run(exceptions.RaySystemError(ValueError("no such class"), "Traceback ..."), size=2,
            one_machine=True)  # fmt: skip  # cut up: it waits for two answers more
    monkeypatch.setattr(ray_cluster, "ray_ended", lambda: True)
    assert run(one_machine=False)[0] == [""]  # a cluster may have it elsewhere


@pytest.mark.parametrize("death", GONE, ids=lambda death: type(death).__name__)
def test_no_worker_is_replaced_in_a_ray_that_has_ended(
    run: Any, monkeypatch: pytest.MonkeyPatch, death: Exception
) -> None:
    def replace(self: Workers, place: int) -> None:
        raise AssertionError("asked of a Ray that is not there")

    monkeypatch.setattr(Workers, "replace", replace)
    monkeypatch.setattr(ray_cluster, "ray_ended", iter([False, True]).__next__)
    with pytest.raises(PoolLost, match="^sim=ray: Ray itself has ended on this machine$"):
        run(death, one_machine=True)


def test_of_a_ray_that_has_ended_nothing_is_asked_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    pool: Any = RayPool.__new__(RayPool)
    pool._starting = SimpleNamespace(exception=lambda: None)
    pool._executor = SimpleNamespace(shutdown=lambda: None)
    pool._started_ray = False
    for private, ended in ((True, True), (True, False), (False, True)):
        pool._private = private
        pool._workers = SimpleNamespace(end=lambda case=(private, ended): asked.append(str(case)))
        monkeypatch.setattr(ray_pool, "ray_ended", lambda ended=ended: ended)
        pool.close()
    assert asked == ["(True, False)", "(False, True)"]
