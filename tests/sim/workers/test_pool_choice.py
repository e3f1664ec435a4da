"""`sim=auto`: which pool is opened, and what it is told."""

from typing import Any

import pytest
import torch

from clients.population.clients import SimulatedClients
from conf.building import instantiate
from sim.workers import pool_choice, ray_pool
from sim.workers.pool_choice import RAY_S, AutoPool
from sim.workers.pools import InlinePool
from sim.workers.process_setup import pin_threads
from strategies.server.estimated_work import MULTIPLICATIONS_PER_S, STEP_S, estimated_work_s
from tests.composing import composed
from tests.federations import tiny_clients, trainer


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
    assert said == "in this process, about 20 s of work"
    there, said = AutoPool(seed=1).open(2 * RAY_S + 1)
    assert isinstance(there, Told)
    assert said == "over Ray, about 21 s of work"


def test_on_one_core_nothing_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_choice.joblib, "cpu_count", lambda: 1)
    assert isinstance(AutoPool(seed=1).open(1e9)[0], InlinePool)


@pytest.mark.parametrize(
    "word", ["workers=1", "device=cuda", "address=auto", "object_store_bytes=80000000",
             "peer_workers=1"]
)  # fmt: skip
def test_what_only_ray_has_is_a_wish_for_it(word: str) -> None:
    pool = instantiate(composed(f"sim.{word}").sim)(seed=5)
    assert isinstance(pool, AutoPool)
    opened, said = pool.open(0.0)
    assert said == "over Ray, less than 1 s of work"
    assert isinstance(opened, Told)
    name, _, value = word.partition("=")
    assert str(opened.options[name]) == value
    assert opened.options["seed"] == 5
    pool.close()
    assert opened.closed


def test_a_student_of_several_processes_is_one_too() -> None:
    assert isinstance(AutoPool(seed=1).open(0.0, processes=2)[0], Told)


def test_nothing_that_the_config_has_is_lost() -> None:
    words = ("workers=3", "threads=2", "device=cuda", "gpus_per_worker=0.5", "peer_workers=1",
             "object_store_bytes=80000000", "address=auto", "peer_timeout_s=7",
             "client_timeout_s=9")  # fmt: skip
    node = composed(*(f"sim.{word}" for word in words)).sim
    pool = instantiate(node)(seed=1)
    told = pool.open(0.0)[0].options
    assert set(node) - {"_target_", "_partial_"} == {word.partition("=")[0] for word in words}
    assert {f"{name}={node[name]}" for name in told if name in node} >= {
        f"{name}={value}" for name, value in told.items() if name != "seed"
    }
    assert told.keys() - {"seed"} == set(node) - {"_target_", "_partial_"}
    here = instantiate(composed("sim.threads=2", "sim.client_timeout_s=9").sim)(seed=1)
    try:
        opened = here.open(0.0)[0]
        assert torch.get_num_threads() == 2
        assert opened._client_timeout_s == 9
    finally:
        pin_threads(1)


def clients(**changes: Any) -> SimulatedClients:
    return tiny_clients(**changes)


def test_the_work_of_a_round_by_hand() -> None:
    # Two epochs in batches of 16; proxy and test examples are answered once; a training step is
    # three passes.
    federation = clients()
    splits, forward = federation.splits, federation.forward
    sizes = [*map(len, federation.partitions)]
    answered = len(splits.proxy) + len(splits.test)
    passes = [3 * 2 * size + answered for size in sizes]
    works = [forward[name] for name in federation.architectures]
    expected = sum(p * w for p, w in zip(passes, works, strict=True)) / MULTIPLICATIONS_PER_S
    expected += STEP_S * sum(2 * -(-size // 16) for size in sizes)
    assert estimated_work_s(object(), federation, 3) == pytest.approx(3 * expected)


def test_a_share_of_the_clients_does_a_share_of_it_and_peers_learn_on_the_proxy_set() -> None:
    from functools import partial

    class Taught:
        def __init__(self, fraction: float, teaching: Any, train_peers: Any) -> None: ...

    federation = clients()
    half = estimated_work_s(partial(dict, fraction=0.5), federation, 1)
    whole = estimated_work_s(partial(dict), federation, 1)
    assert half == pytest.approx(whole / 2)
    epochs = [
        estimated_work_s(partial(Taught, teaching=partial(dict, epochs=n)), federation, 1)
        for n in (0, 10)
    ]
    more = (
        3
        * 10
        * len(federation.splits.proxy)
        * sum(federation.forward[name] for name in federation.architectures)
    )
    assert epochs[1] - epochs[0] == pytest.approx(more / MULTIPLICATIONS_PER_S)


def test_a_trainer_that_does_not_tell_its_epochs_takes_one() -> None:
    told = estimated_work_s(object(), clients(train=trainer()), 1)
    assert 0 < estimated_work_s(object(), clients(train=lambda *_, **__: [0.0]), 1) != told
