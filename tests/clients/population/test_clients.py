"""The clients of a federation: what each learns, and that a large population costs nothing."""

import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from clients.partition import Partition
from clients.partition.flat_partition import as_partition
from clients.population.architectures import Architectures
from clients.population.clients import SimulatedClients
from clients.training.evaluation import predict
from clients.training.losses import cross_entropy
from sim.engine.grid import PoolGrid
from strategies.cohorts import draw
from tests.federations import (
    distillation,
    inline,
    run_ours,
    simulated,
    student_of,
    tiny_clients,
    vector,
)
from tests.foreign_clients import foreign_app


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_arrays_and_lists_describe_the_same_federation() -> None:
    lists = tiny_clients()
    assert isinstance(lists.partitions, list)
    arrays = tiny_clients(
        partitions=as_partition(lists.partitions),
        architectures=Architectures(("linear", "mlp"), np.array([0, 1, 0, 1, 0], dtype=np.uint8)),
    )
    assert isinstance(arrays.partitions, Partition)

    def bits(clients: SimulatedClients) -> Any:
        pool = inline(simulated(clients))
        done = run_ours(pool, clients, distillation(clients, fraction=0.5), rounds=2)
        return done.sha256, [str(exchange) for r in done.reports for exchange in r.exchanges]

    assert bits(arrays) == bits(lists)


def peak_of_a_round(num_clients: int, grid: PoolGrid, server_round: int) -> int:
    """Bytes that drawing and asking 20 clients takes at most."""
    gc.collect()
    tracemalloc.start()
    grid.begin_round(server_round)
    cohort = draw(grid.get_node_ids(), 20 / num_clients, rng(server_round))
    content = RecordDict({"arrays": vector("same")})
    replies = grid.send_and_receive(Message(content, node, "train") for node in cohort)
    assert [reply.metadata.src_node_id for reply in replies] == cohort
    assert not any(reply.has_error() for reply in replies)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_the_memory_of_a_round_does_not_grow_with_the_population() -> None:
    """A list of a million node ids alone would take 40 MB, a round of 20 clients takes 0.2."""
    peaks = {}
    for num_clients in (1_000, 1_000_000):
        kinds = Architectures(("a",), np.zeros(num_clients, dtype=np.uint8))
        grid = PoolGrid(inline(foreign_app()), kinds)
        peak_of_a_round(num_clients, grid, 1)  # imports and caches
        peaks[num_clients] = peak_of_a_round(num_clients, grid, 2)
    assert peaks[1_000_000] < 1.1 * peaks[1_000] + 10_000


def test_labels_to_learn_are_the_clients_own_or_the_conditions() -> None:
    """And `learn` learns those: under a condition that says 0, a network says 0."""
    plain = tiny_clients(2)
    own = plain.splits.private.labels[plain.partitions[1]]
    assert plain.labels(1, 3).tolist() == own.tolist()
    clients = tiny_clients(2, condition=_zeros)
    assert clients.labels(1, 3).tolist() == [0] * len(own)
    network = student_of(clients)
    losses = clients.learn(network, 1, 1, epochs=20)
    assert len(losses) == 20
    assert predict(network, clients.splits.test, np.arange(50)).argmax(1).unique().tolist() == [0]


def _zeros(labels: Any, num_classes: int, client_id: int, server_round: int) -> Any:
    return labels * 0


class Keeping:
    """A loss that counts its calls."""

    calls = 0

    def __call__(self, logits: Any, labels: Any) -> Any:
        self.calls += 1
        return cross_entropy(logits, labels)


def test_what_learns_by_itself_keeps_nothing() -> None:
    clients = tiny_clients(2)
    with pytest.raises(ValueError, match="loss: Keeping changed its 'calls'"):
        clients.learn(student_of(clients), 0, 1, Keeping())
