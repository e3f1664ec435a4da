"""What tests of parameter baselines share: like clients, and a client's training by hand."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from clients.messages.arrays import read_arrays
from clients.models import mlp
from clients.models.factory import Parameters, build, load_parameters, parameters_of
from clients.population.clients import SimulatedClients
from clients.training.loop import train
from clients.training.objective import Objective
from tests.federations import Run, inline, run_ours, simulated, student_of, tiny_clients

MLP = partial(mlp, hidden=(8,))
UNEQUAL = np.split(np.arange(120), np.cumsum([16, 48, 32]))
"""Four clients of 16, 48, 32 and 24 examples."""


def sgd(epochs: int = 1, batch_size: int = 16, **numbers: Any) -> Any:
    """Local training by SGD; its options by keyword."""
    optimizer = partial(torch.optim.SGD, **{"lr": 0.1, **numbers})
    return partial(train, epochs=epochs, batch_size=batch_size, optimizer=optimizer)


def alike(**changes: Any) -> SimulatedClients:
    """Four clients of the student's architecture, of unequal size."""
    parts = {"architectures": ["mlp"] * 4, "models": {"mlp": MLP}, "student": MLP, "train": sgd()}
    return tiny_clients(4, **({"partitions": UNEQUAL} | parts | changes))


def start_of(clients: SimulatedClients) -> Parameters:
    """Return the student as it is before round 1."""
    return parameters_of(student_of(clients))


def trained(
    clients: SimulatedClients,
    client_id: int,
    server_round: int,
    start: Parameters,
    objective: Objective | None = None,
    anchors: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Parameters:
    """Train a client by itself from where it is told to begin."""
    model = clients.models[clients.architectures[client_id]]
    network = build(model, clients.splits.private.task, np.random.default_rng(0))
    load_parameters(network, start)
    clients.learn(network, client_id, server_round, objective, anchors, **changes)
    return parameters_of(network)


def mean(parameters: list[Parameters], weights: Any) -> Parameters:
    """Average parameters in float64."""
    shares = np.asarray(weights, float) / np.sum(weights)
    return {
        name: np.asarray(
            sum(share * each[name] for share, each in zip(shares, parameters, strict=True))
        )
        for name in parameters[0]
    }


def sizes(clients: SimulatedClients) -> list[int]:
    """Return how many examples each client has."""
    return [len(own) for own in clients.partitions]


def played(clients: SimulatedClients, strategy: Any, rounds: int = 1, **options: Any) -> Run:
    """Run a strategy inline."""
    return run_ours(inline(simulated(clients, strategy)), clients, strategy, rounds, **options)


def kept(run: Run, client_id: int, name: str = "model") -> Parameters:
    """Return a record of what a client keeps."""
    return read_arrays(run.grid.states.of(client_id).array_records[name])


def close(found: Mapping[str, Any], wanted: Mapping[str, Any], **tolerance: float) -> None:
    """Compare parameters that were computed in another order."""
    assert {*found} == {*wanted}
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, **({"rtol": 1e-4, "atol": 1e-6} | tolerance))
