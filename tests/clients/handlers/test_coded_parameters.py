"""Parameters that travel by a codec: what arrives, is counted, is kept, and what is refused."""

from functools import partial
from math import prod
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message
from flwr.serverapp.strategy import FedAvg, FedMedian
from torch import nn

from clients.app import SimulatedApp
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.codecs import Precision
from clients.messages.compression import QSGD, Deflate, GaussianMechanism, TopK
from clients.models.factory import parameters_of
from clients.population.profiles import alike
from sim.engine.grid import PoolGrid
from sim.topology import graphs
from strategies.server.averaging import Averaging
from tests.coded import SAME, apart, averaged, failures, trained
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
from tests.peers import alike as peers_of
from tests.peers import averaging as gossip_of
from tests.peers import topology

# --- what arrives ---


@pytest.mark.parametrize(
    ("codec", "off"),
    [
        (Precision("float32"), 0),
        (Precision("float16"), 1e-3),
        (Precision("uint8"), 1e-2),
        (TopK(0.9), 1e-2),
        (QSGD(8), 1e-2),
        (Deflate(), 1e-2),
        (GaussianMechanism(1e6, 1e-4), 1e-3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_mean_is_of_what_was_decoded(codec: Any, off: float) -> None:
    plain, found = averaged(rounds=1), averaged(codec, rounds=1)
    assert apart(plain, found) <= off
    assert (found.sha256 == plain.sha256) == (off == 0)
    assert not failures(found)


@pytest.mark.parametrize("codec", [TopK(0.2), QSGD(3), Precision("uint8")])
def test_bits_are_the_same_in_groups_of_any_pool(codec: Any) -> None:
    found, ray = averaged(codec), averaged(codec, "ray")
    assert found.sha256 == ray.sha256 != averaged().sha256
    bytes_of = [[e.reply_bytes for e in trained(each)] for each in (found, ray)]
    assert bytes_of[0] == bytes_of[1]
    states = [[each.grid.states.of(k) for k in range(4)] for each in (found, ray)]
    assert states[0] == states[1]
    alone = averaged(codec, group_size=1, rounds=1)  # other sums, and hardly another draw
    assert apart(averaged(codec, rounds=1), alone) < 2e-2


@pytest.mark.parametrize("kind", [FedAvg, FedMedian])
def test_flowers_own_strategies_see_arrays_as_they_were(kind: Any) -> None:
    seen: list[dict[str, tuple[int, ...]]] = []

    class Watching(kind):  # type: ignore[misc]
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            replies = list(replies)
            for reply in replies:
                arrays = read_arrays(reply.content.array_records["arrays"])
                seen.append({name: array.shape for name, array in arrays.items()})
            return super().aggregate_train(server_round, replies)

    make = partial(Watching, fraction_evaluate=0.0, **ALONE)
    found, plain = averaged(TopK(0.5), make=make), averaged(make=make)
    assert len(seen) == 16
    assert all(list(each.items()) == list(seen[-1].items()) for each in seen)
    assert apart(found, plain) > 1e-3
    assert [e.failure for e in trained(found)] == [""] * 4


# --- what is counted ---


def test_bytes_and_seconds_are_those_of_what_is_encoded() -> None:
    slow = partial(alike, multiplications_per_s=1e18, download_bytes_per_s=1e18,
                   upload_bytes_per_s=1.0, latency_s=0.0)  # fmt: skip
    plain, few = averaged(profile=slow), averaged(QSGD(1, bucket=4096), profile=slow)
    size = sum(prod(array.shape) for array in plain.parameters.values())
    metrics = trained(plain)[0].reply_bytes - 4 * size - 128 * len(plain.parameters)
    for exchange in trained(few):
        assert exchange.reply_bytes < size / 8 + 4 + 3 * 128 + 30 * len(plain.parameters) + metrics
        assert exchange.simulated_time_s == pytest.approx(exchange.reply_bytes, rel=1e-6)
    assert trained(plain)[0].reply_bytes > 2 * trained(few)[0].reply_bytes


def test_what_peers_keep_for_each_other_weighs_what_was_encoded() -> None:
    def played(codec: Any) -> tuple[Run, list[int]]:
        clients = peers_of(codec=codec)
        strategy = gossip_of(clients, topology(graphs.ring))
        run = run_ours(inline(simulated(clients, strategy)), clients, strategy, rounds=2)
        assert not failures(run)
        letters = [e.request_bytes for e in run.grid.exchanges if e.phase == "train.take"]
        return run, letters

    (plain, many), (half, few) = played(None), played(Precision("float16"))
    assert 0 < apart(plain, half) < 1e-2
    size = 4 * sum(array.size for array in plain.parameters.values())
    assert all(one - other == pytest.approx(2 * size / 2, abs=8)
               for one, other in zip(many, few, strict=True))  # fmt: skip
    shown = [e.reply_bytes for e in half.grid.exchanges if e.phase == "evaluate.parameters"]
    assert min(shown) > size  # a measurement goes as it is


# --- what is kept, and noted ---


class Counting:
    """Counts the client's messages in its state, and notes what it is told."""

    def encode(
        self, arrays: Any, *, state: Any, note: Any, client_id: int, server_round: int,
        received: Any, rng: Any,
    ) -> Any:  # fmt: skip
        assert set(received) == set(arrays)
        state["count"] = np.array([int(state.get("count", [0])[0]) + 1])
        note(told=100 * client_id + 10 * server_round + state["count"][0], drawn=rng.random())
        return arrays

    def decode(self, arrays: Any) -> Any:
        return arrays


def test_a_codec_is_told_whose_and_keeps_what_is_in_a_state() -> None:
    runs = [averaged(Counting(), pool, rounds=2) for pool in ("inline", "ray")]
    for run in runs:
        for server_round in (1, 2):
            notes = [e.metrics["note.told"] for e in trained(run, server_round)]
            assert notes == [100 * k + 11 * server_round for k in range(4)]
    drawn = [[e.metrics["note.drawn"] for r in (1, 2) for e in trained(run, r)] for run in runs]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 8
    assert runs[0].sha256 == averaged().sha256


def test_two_messages_of_one_round_draw_apart() -> None:
    """Noise that is added twice can be taken off."""
    clients, strategy = tiny_clients(4, codec=Counting(), **SAME), Averaging(seed=SEED)
    grid = PoolGrid(inline(simulated(clients, strategy)), clients.architectures)
    grid.begin_round(1)
    arrays = write_arrays(parameters_of(student_of(clients)))
    for _ in range(2):
        grid.send_and_receive(strategy.configure_train(1, arrays, ConfigRecord(), grid))
    drawn = [e.metrics["note.drawn"] for e in grid.exchanges]
    assert len(set(drawn)) == len(drawn) == 8


# --- networks with buffers, messengers, Flower's engine ---


def normed(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    inner = (nn.Linear(prod(input_shape), 8), nn.BatchNorm1d(8), nn.ReLU())
    return nn.Sequential(nn.Flatten(), *inner, nn.Linear(8, num_classes))


def test_statistics_of_batches_travel_as_they_are() -> None:
    """One bit would make a variance negative; the order of arrays is that of the request."""
    more = {"models": {"mlp": normed}, "student": normed}
    plain, found = averaged(rounds=1, **more), averaged(QSGD(1), rounds=1, **more)
    assert not failures(found)
    names = [name for name in plain.parameters if "running" in name or "tracked" in name]
    assert len(names) == 3
    for name in names:
        assert (found.parameters[name] == plain.parameters[name]).all()
    assert list(found.parameters) == list(plain.parameters)
    assert apart(plain, found) > 1e-3


def test_flowers_engine_gets_decoded_arrays() -> None:
    clients = tiny_clients(4, codec=TopK(0.2), **SAME)
    app, plain = SimulatedApp(clients), tiny_clients(4, **SAME)
    ours = averaged(TopK(0.2), rounds=1)
    replies: list[Any] = []

    class Flowers:
        """An app of which our engine knows nothing but that it is called."""

        def __call__(self, message: Message, context: Any) -> Message:
            replies.append(app(message, context))
            return replies[-1]

    run = run_ours(inline(Flowers()), plain, Averaging(seed=SEED))
    arrays = [read_arrays(r.content["arrays"]) for r in replies if "arrays" in r.content]
    assert len(arrays) == 4
    assert all(set(each) == set(run.parameters) for each in arrays)
    assert apart(ours, run) < 0.05
