"""Where nobody trains and all begin alike nothing moves, by every shipped method without a server.

On every shipped graph, with mixings that suit the method and faults in turn.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import RecordDict
from torch import nn

from clients.app import SimulatedApp
from clients.handlers.state import MESSENGER, MODEL
from clients.messages.arrays import read_arrays, write_arrays
from clients.models.factory import Parameters, load_parameters, parameters_of
from clients.models.layers import two_parts
from clients.training.evaluation import predict
from conf.building import instantiate
from sim.engine.grid import PoolGrid
from sim.topology.availability import Availability
from sim.workers.state_serialization import freeze
from strategies.argument_injection import completed
from tests.composing import composed
from tests.federations import SEED, handlers_of, inline, run_ours, student_of, tiny_clients
from tests.shipped import FAULTS, TOPOLOGIES, mixings_of, serverless

N, ROUNDS = 6, 3
IDLE = ("clients.training", "clients.messenger", "strategy.how", "strategy.distil")
"""Where a config says for how many epochs peers learn."""

EXACT = 0.0
"""Sums in float64 of one float32 number, by weights that sum to one within 1e-15, round to it."""
PUSHED = 5 * ROUNDS * 2.0**-24
"""Relative: a numerator, a sum, a weight and their ratio are rounded to float32 in each round."""
TARGETS = 2e-6
"""Weights and probabilities of up to six neighbours are rounded to float32 and summed there."""
SQUARES = 1e-14
"""Of squared norms: what a difference of two float64 sums of squares may leave."""


def normed(image_shape: Any, num_classes: int) -> nn.Module:
    """A network with parameters, running statistics and a counter."""
    layers = [nn.Flatten(), nn.Linear(math.prod(image_shape), 3), nn.BatchNorm1d(3)]
    return two_parts(layers, 3, num_classes)


class Hearing(SimulatedApp):
    """Notes the targets that peers are sent."""

    def __init__(self, clients: Any, strategy: Any, heard: list[Parameters]) -> None:
        super().__init__(clients, handlers_of(strategy))
        self.heard = heard

    def serve(self, requests: Any, contexts: Any, device: str = "cpu") -> Any:
        if requests[0].metadata.message_type == "train.targets":
            self.heard += [read_arrays(r.content.array_records["targets"]) for r in requests]
        yield from super().serve(requests, contexts, device)


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph in a file, the same for all: matrices of shipped graphs are made once."""
    path = tmp_path_factory.mktemp("graphs") / "edges"
    path.write_text("0 1\n1 0\n")
    return path


def idle_config(method: str) -> Any:
    config = composed(*method.split(), f"rounds={ROUNDS + 1}")
    for place in IDLE:
        *_, last = nodes = [config, *_walk(config, place)]
        if len(nodes) == place.count(".") + 2 and last is not None:
            last.epochs = 0
    if "first_rounds" in config.strategy:
        config.strategy.first_rounds = ROUNDS
    return config


def _walk(config: Any, place: str) -> list[Any]:
    found = []
    for key in place.split("."):
        config = config.get(key)
        if config is None:
            break
        found.append(config)
    return found


def suits(strategy: Any, mixing: Any) -> bool:
    """Tell whether a method is for such weights: it refuses others (test_gossip_averaging.py)."""
    kind, matrices = strategy._target_.rpartition(".")[2], [mixing(r) for r in range(1, ROUNDS + 1)]
    if kind == "Stages":
        return suits(strategy.first, mixing)
    if kind == "MutualTransfer":
        return all(most_partners(mixing(r)) <= 1 for r in range(1, 33))
    if kind == "ParameterGossip":
        sums = [matrix.sum(axis=0 if strategy.push else 1) for matrix in matrices]
        return bool(np.allclose(sums, 1.0))
    return True


def most_partners(matrix: Any) -> int:
    joined = (matrix + matrix.T).toarray() > 0
    np.fill_diagonal(joined, 0)
    return int(joined.sum(1).max())


def begun(clients: Any) -> Parameters:
    """Draw parameters, statistics that are not all zero and one, and a count."""
    rng, start = np.random.default_rng(0), parameters_of(student_of(clients))
    for name, value in start.items():
        whole = np.issubdtype(value.dtype, np.integer)
        start[name] = np.asarray(7 if whole else rng.uniform(0.1, 2.0, value.shape), value.dtype)
    return start


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", serverless())
def test_where_nobody_trains_nothing_moves(method: str, every: int, edges: Path) -> None:
    """On every third graph, by each method another; on all of them with the slow tests."""
    config = idle_config(method)
    training = instantiate(config.clients.training)
    clients = tiny_clients(
        N,
        architectures=["normed"] * N,
        models={"normed": normed},
        student=normed,
        train=training,
        messenger=instantiate(config.clients.messenger),
    )
    start, pool, played = begun(clients), inline(None), 0
    heard = list[Parameters]()
    chosen = TOPOLOGIES[serverless().index(method) % every :: every]
    for number, topology in enumerate(chosen):
        found = mixings_of(topology, N, SEED, edges)
        fitting = [called for called in found if suits(config.strategy, found[called])]
        if not fitting:
            continue
        called, kind = fitting[number % len(fitting)], [*FAULTS][number % len(FAULTS)]
        strategy = built(config, clients, found[called], kind)
        pool.load(Hearing(clients, strategy, heard))
        grid, arrays = PoolGrid(pool, clients.architectures), write_arrays(start)
        if "gossip" in method:  # each peer begins with a network of its own
            for peer in range(N):
                grid.states.put(peer, pool.keep(freeze(RecordDict({MODEL: arrays}))))
        about = {"arrays": arrays, "grid": grid, "evaluate_every": 99}
        run = run_ours(pool, clients, strategy, ROUNDS, **about)
        rounding = PUSHED if "push_sum" in method else EXACT
        require_unmoved(f"{called}, {kind}", run, start, rounding)
        played += 1
    assert played >= (2 // every if "defkt" in method else len(chosen) - 1)
    if "gossip" in method:
        require_targets(heard, clients, start)


def built(config: Any, clients: Any, mixing: Any, kind: str) -> Any:
    known = {
        **{"num_clients": N, "mixing": mixing, "models": clients.models, "seed": SEED},
        **{"availability": Availability(num_peers=N, seed=SEED, **FAULTS[kind])},
        **{"student_model": clients.student, "messenger": clients.messenger},
        **{"proxy": clients.splits.proxy, "test": clients.splits.test, "rounds": ROUNDS + 1},
        **{"student": student_of(clients), "architectures": clients.architectures},
    }
    return completed(instantiate(config.strategy), known)


def require_unmoved(where: str, run: Any, start: Parameters, relative: float) -> None:
    norm = sum(float((value.astype(np.float64) ** 2).sum()) for value in start.values())
    for report in run.reports:
        assert not [str(each) for each in report.exchanges if each.failure], where
        distance = report.train.get("consensus-distance", 0.0)
        assert distance <= (relative**2 + SQUARES) * norm, f"{where}, round {report.server_round}"
    for peer in range(N):
        records = run.grid.states.of(peer).array_records
        record = records.get(MESSENGER, records.get(MODEL))
        for name, value in {} if record is None else read_arrays(record).items():
            np.testing.assert_allclose(value, start[name], relative, 0, err_msg=where)


def require_targets(heard: list[Parameters], clients: Any, start: Parameters) -> None:
    """All answer alike, so that whatever their weights are the targets are these answers."""
    network = student_of(clients)
    load_parameters(network, start)
    proxy = clients.splits.proxy
    answers = torch.softmax(predict(network, proxy, np.arange(len(proxy))), -1).numpy()
    assert len(heard) > 60
    for each in heard:
        np.testing.assert_allclose(each["targets"], answers[each["proxy-ids"]], 0, TARGETS)
