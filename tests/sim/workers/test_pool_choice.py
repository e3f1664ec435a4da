"""`sim=auto`: which pool is opened, and what it is told."""

from functools import partial
from typing import Any

import pytest
import torch
from flwr.serverapp.strategy import FedAvg

from clients.population.drawing import with_sample
from conf.building import instantiate
from sim.workers import pool_choice, ray_pool
from sim.workers.pool_choice import RAY_S, AutoPool
from sim.workers.pools import InlinePool
from sim.workers.process_setup import pin_threads
from strategies.server.estimated_work import MULTIPLICATIONS_PER_S, STEP_S, estimated_work_s
from tests.composing import composed
from tests.federations import tiny_clients


class Told:
    """Stands for the pool over Ray."""

    def __init__(self, **options: Any) -> None:
        self.options, self.closed = options, False

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "RayPool", Told)
    monkeypatch.setattr(pool_choice.joblib, "cpu_count", lambda: 2)


def test_ray_is_started_where_it_saves_more_than_it_costs() -> None:
    # Two cores save half of the work: with 20 s of it just what Ray costs.
    here, said = AutoPool(seed=1).open(2 * RAY_S)
    assert isinstance(here, InlinePool)
    assert said == "in this process, about 20 s of clients' work"
    there, said = AutoPool(seed=1).open(2 * RAY_S + 1)
    assert isinstance(there, Told)
    assert said == "over Ray, about 21 s of clients' work"


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2)])
def test_where_one_process_fills_the_cores_nothing_is_saved(
    cores: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_choice.joblib, "cpu_count", lambda: cores)
    try:
        assert isinstance(AutoPool(seed=1, threads=threads).open(1e9)[0], InlinePool)
    finally:
        pin_threads(1)


@pytest.mark.parametrize(
    "word", ["workers=1", "device=cuda", "address=auto", "object_store_bytes=80000000",
             "peer_workers=1", "client_timeout_s=9.0"]
)  # fmt: skip
def test_what_only_ray_has_is_a_wish_for_it(word: str) -> None:
    pool = instantiate(composed(f"sim.{word}").sim)(seed=5)
    assert isinstance(pool, AutoPool)
    assert isinstance(pool._opened, Told)  # at once
    opened, said = pool.open(0.0)
    name, _, value = word.partition("=")
    assert said == f"over Ray, as sim.{name} asks"
    assert isinstance(opened, Told)
    assert str(opened.options[name]) == value
    assert opened.options["seed"] == 5
    pool.close()
    assert opened.closed


def test_a_student_of_several_processes_is_one_too() -> None:
    assert isinstance(AutoPool(seed=1).open(0.0, processes=2)[0], Told)


def test_nothing_that_the_config_has_is_lost() -> None:
    words = ("workers=3", "threads=2", "device=cuda", "gpus_per_worker=0.5", "peer_workers=1",
             "object_store_bytes=80000000", "address=auto", "peer_timeout_s=7.0",
             "client_timeout_s=9.0")  # fmt: skip
    told = instantiate(composed(*(f"sim.{word}" for word in words)).sim)(seed=1).open(0.0)[0]
    assert {f"{n}={v}" for n, v in told.options.items()} == {*words, "seed=1"}
    node = composed("sim.threads=2", "sim.state_memory_bytes=5").sim
    left = set(node) - {"_target_", "_partial_", "state_memory_bytes"}
    assert left == {word.partition("=")[0] for word in words}
    try:
        opened = instantiate(node)(seed=1).open(0.0)[0]
        assert torch.get_num_threads() == 2
        assert opened._state_memory_bytes == 5
    finally:
        pin_threads(1)


class Teaching:
    """What a strategy that distils wants."""

    def __init__(
        self, proxy: Any, fraction: float = 1.0, local_training: bool = True, teaching: Any = None
    ) -> None: ...


class Group(Teaching):
    """And one whose peers learn together."""

    def __init__(self, train_peers: Any, **others: Any) -> None: ...


def test_the_work_of_rounds_by_hand() -> None:
    # Two epochs in batches of 16; a training step is three passes. Teachers answer the proxy set,
    # and in round 3, the last, all 50 test examples, before it a sample of 10.
    plain = tiny_clients()
    splits = with_sample(plain.splits, 1, 10, usual=0, rounds=3)
    federation = tiny_clients(splits=splits)
    sizes, forward = [*map(len, federation.partitions)], federation.forward
    works = [forward[name] for name in federation.architectures]
    answered = 2 * len(splits.proxy) + 10 + 50
    for strategy, others in ((partial(Teaching), answered), (FedAvg(), 0)):
        passes = [2 * 3 * 2 * size + others for size in sizes]
        expected = sum(p * w for p, w in zip(passes, works, strict=True)) / MULTIPLICATIONS_PER_S
        expected += STEP_S * sum(2 * 2 * -(-size // 16) for size in sizes)
        assert estimated_work_s(strategy, federation, range(2, 4)) == pytest.approx(expected)


def test_a_share_of_the_clients_does_a_share_of_it() -> None:
    federation, once = tiny_clients(), range(1, 2)
    for half, whole in (
        (partial(Teaching, fraction=0.5), partial(Teaching, fraction=None)),
        (FedAvg(fraction_train=0.5), FedAvg()),
    ):
        expected = estimated_work_s(whole, federation, once) / 2
        assert estimated_work_s(half, federation, once) == pytest.approx(expected)


def test_who_does_not_train_answers_only_and_peers_learn_on_the_proxy_set() -> None:
    federation, once = tiny_clients(), range(1, 2)
    splits = federation.splits
    all_forward = sum(federation.forward[name] for name in federation.architectures)
    answers = all_forward * (len(splits.proxy) + len(splits.test)) / MULTIPLICATIONS_PER_S
    still = partial(Teaching, local_training=False)
    assert estimated_work_s(still, federation, once) == pytest.approx(answers)
    epochs = [
        estimated_work_s(partial(Group, teaching=partial(dict, epochs=n)), federation, once)
        for n in (0, 10)
    ]
    more = 3 * 10 * len(splits.proxy) * all_forward / MULTIPLICATIONS_PER_S
    assert epochs[1] - epochs[0] == pytest.approx(more)


def test_a_trainer_that_does_not_tell_its_epochs_takes_one() -> None:
    silent = tiny_clients(train=lambda *_, **__: [0.0])
    once = range(1, 2)
    told = estimated_work_s(FedAvg(), tiny_clients(), once)
    assert 0 < estimated_work_s(FedAvg(), silent, once) != told
