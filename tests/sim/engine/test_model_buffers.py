"""Statistics and counters are averaged, and dtypes kept, whatever a strategy of Flower's does."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.serverapp import strategy as flower
from omegaconf import OmegaConf

from clients.messages.arrays import read_arrays, write_arrays
from clients.models import mlp, resnet8
from clients.models.factory import parameters_of
from clients.population.clients import SimulatedClients
from conf.errors import ConfigError
from conf.unsupported_strategies import check_strategy
from sim.engine.model_buffers import aggregated_train, buffers_of
from strategies.server.averaging import Averaging
from tests.federations import (
    ALONE,
    SEED,
    Run,
    inline,
    run_ours,
    simulated,
    student_of,
    tiny_clients,
)


def averaging(**alone: int) -> Averaging:
    """Make the strategy of ours that folds parameters where they are made."""
    return Averaging(seed=SEED)


STRATEGIES: list[Any] = [
    flower.FedAvg,
    flower.FedAvgM,
    partial(flower.FedAvgM, server_momentum=0.9, server_learning_rate=1.5),
    flower.FedAdagrad,
    partial(flower.FedAdam, eta=0.5),
    flower.FedYogi,
    flower.FedMedian,
    partial(flower.FedTrimmedAvg, beta=0.2),
    flower.Krum,
    flower.MultiKrum,
    flower.Bulyan,
    partial(flower.QFedAvg, client_learning_rate=0.1, train_loss_key="train-loss"),
    averaging,
]


def named(make: Any) -> str:
    """Name a strategy alike in every process."""
    return str(getattr(make, "func", make).__name__)


def normed(**changes: Any) -> SimulatedClients:
    """Five clients of a small network with batch norm, of 8 to 40 examples."""
    model = partial(resnet8, width=4, norm="batch")
    cut = np.split(np.arange(120), [8, 24, 48, 80])
    settings = {"architectures": ["same"] * 5, "models": {"same": model}, "student": model}
    return tiny_clients(5, cut, **(settings | changes))


@pytest.fixture(scope="module")
def fedavg() -> Run:
    return run_ours(inline(simulated(clients := normed())), clients, flower.FedAvg(**ALONE))


@pytest.mark.parametrize("make", STRATEGIES, ids=named)
def test_buffers_are_averaged_and_dtypes_kept(make: Any, fedavg: Run) -> None:
    clients = normed()
    student = student_of(clients)
    strategy = make(**ALONE)
    names = buffers_of(student, strategy)
    run = run_ours(inline(simulated(clients)), clients, strategy, rounds=1, buffers=names)
    start = parameters_of(student)
    assert len(names) > 3
    assert {n: a.dtype for n, a in run.parameters.items()} == {n: a.dtype for n, a in start.items()}
    robust = isinstance(strategy, (flower.FedMedian, flower.FedTrimmedAvg, flower.Krum))
    robust |= isinstance(strategy, (flower.MultiKrum, flower.Bulyan))
    for name in names:
        array = run.parameters[name]
        if "var" in name:
            assert (array >= 0).all()
        if "num_batches" in name:  # 16 a batch, two epochs: 2, 4, 6, 4, 6 batches
            assert int(array) in (4, 5)
        elif not robust:
            np.testing.assert_allclose(array, fedavg.parameters[name], rtol=1e-6)
    assert any(
        run.parameters[name].tobytes() != start[name].tobytes() for name in start.keys() - names
    )


def test_averages_of_statistics_and_counters_by_hand() -> None:
    from flwr.app import Message, MetricRecord, RecordDict

    from clients.messages.requests import node_id_of

    sent = write_arrays({"w": np.zeros(1, "f4"), "v": np.ones(1, "f4"), "n": np.array(3)})
    content = RecordDict({"arrays": sent})
    replies = []
    for client, (examples, w, v, n) in enumerate([(1, 4.0, 1.0, 4), (3, 8.0, 5.0, 9)]):
        request = Message(content, dst_node_id=node_id_of(client), message_type="train")
        own = {"w": np.full(1, w, "f4"), "v": np.full(1, v, "f4"), "n": np.array(n)}
        metrics = MetricRecord({"num-examples": examples})
        reply = RecordDict({"arrays": write_arrays(own), "metrics": metrics})
        replies.append(Message(reply, reply_to=request))
    strategy = flower.FedAvg(**ALONE)
    found, _ = aggregated_train(strategy, 1, sent, {"v", "n"}, replies)
    assert found is not None
    arrays = read_arrays(found)
    assert (arrays["w"].item(), arrays["v"].item()) == (7.0, 4.0)  # (4 + 24) / 4, (1 + 15) / 4
    assert (arrays["n"].item(), arrays["n"].dtype) == (8, np.dtype("int64"))  # 31 / 4
    assert read_arrays(replies[0].content["arrays"])["v"].item() == 1.0  # left as it was


def test_a_promise_of_privacy_is_not_given_for_statistics() -> None:
    inner = flower.FedAvg(**ALONE)
    private = flower.DifferentialPrivacyServerSideFixedClipping(inner, 0.0, 1e-3, 5)
    with pytest.raises(ValueError, match=r"is a statistic of private data.*student.norm=group"):
        buffers_of(student_of(normed()), private)


@pytest.mark.parametrize("adaptive", [False, True])
def test_server_side_clipping_bounds_the_update(adaptive: bool) -> None:
    inner = flower.FedAvg(**ALONE)
    wrap = flower.DifferentialPrivacyServerSideFixedClipping
    strategy: Any = wrap(inner, 0.0, 1e-3, 3)
    if adaptive:
        strategy = flower.DifferentialPrivacyServerSideAdaptiveClipping(inner, 0.0, 3, 1e-3)
    same = {"models": {"same": partial(mlp, hidden=(8,))}, "student": partial(mlp, hidden=(8,))}
    clients = tiny_clients(3, architectures=["same"] * 3, **same)
    student = student_of(clients)
    names = buffers_of(student, strategy)
    run = run_ours(inline(simulated(clients)), clients, strategy, buffers=names)
    start = parameters_of(student)
    norm = np.sqrt(sum(np.square(run.parameters[n] - start[n].astype("d")).sum() for n in start))
    assert 5e-4 < norm <= 1.01e-3


@pytest.mark.parametrize(
    ("name", "need"),
    [
        ("DifferentialPrivacyClientSideFixedClipping", "the client mod fixedclipping_mod"),
        ("DifferentialPrivacyClientSideAdaptiveClipping", "the client mod adaptiveclipping_mod"),
        ("FedXgbBagging", "clients that grow boosted trees"),
        ("FedXgbCyclic", "clients that grow boosted trees"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_strategies_that_count_on_what_nobody_does_are_refused(
    name: str, need: str, nested: bool
) -> None:
    node: dict[str, Any] = {"_target_": f"flwr.serverapp.strategy.{name}"}
    if nested:
        wrapper = "flwr.serverapp.strategy.DifferentialPrivacyServerSideFixedClipping"
        node = {"_target_": wrapper, "strategy": node}
    key = "strategy.strategy" if nested else "strategy"
    with pytest.raises(ConfigError, match=rf"^{key}._target_=.*{name} needs {need}, which our"):
        check_strategy(OmegaConf.create({"strategy": node}))
    check_strategy(OmegaConf.create({"strategy": {"_target_": "flwr.serverapp.strategy.FedAvg"}}))
