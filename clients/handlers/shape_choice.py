"""Reshaping: a client that has trained may choose another shape for its network."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from clients.data import normalised
from clients.execution.executor import Trained
from clients.execution.model_cache import as_tensors
from clients.population.clients import SimulatedClients
from clients.population.shape_plans import carried_over, chosen
from clients.seeding import Purpose, stream


def reshaped(
    clients: SimulatedClients,
    ids: Sequence[int],
    results: Iterable[Trained | Exception],
    server_round: int,
    device: str,
) -> Iterator[Trained | Exception]:
    """Let clients that have trained on their private examples choose their networks' shapes.

    Args:
        clients: All of the federation's; where they have no `shape` nothing is done.
        ids: Whom.
        results: What came of their training.
        server_round: 1..R.
        device: Where.

    Yields:
        For each client in turn the same, or what its network came to in the shape that it chose, or
        what kept it from that.
    """
    for client_id, result in zip(ids, results, strict=True):
        if clients.shape is None or isinstance(result, Exception):
            yield result
            continue
        try:
            yield _reshaped(clients, client_id, result, server_round, device)
        except Exception as error:  # the client's, not the group's
            yield error


def _reshaped(
    clients: SimulatedClients, client_id: int, result: Trained, server_round: int, device: str
) -> Trained:
    shape, local = clients.shape, clients.local[client_id]
    assert shape is not None, "else nobody chooses"
    networks, before = clients.place(device).networks, local.plans[0]
    rng = np.random.default_rng(stream(clients.seed, Purpose.SHAPE, server_round, client_id))
    parameters = as_tensors(result.parameters, device)
    network = networks.loaded(clients.network_of(client_id), parameters)
    private = clients.seen(clients.splits.private, client_id, "answer", server_round)
    inputs = torch.from_numpy(normalised(private, clients.partitions[client_id]))
    labels = torch.from_numpy(clients.labels(client_id, server_round))
    offered = {
        "rng": rng,
        "client_id": client_id,
        "server_round": server_round,
        "note": local.note,
        "losses": list(result.losses),
    }
    examples = inputs.to(device), labels.to(device)
    plan = chosen(shape, network, examples, before, **offered)
    local.replan(plan)
    if plan is not before:
        wanted = networks.of(clients.network_of(client_id))
        kept = carried_over(shape, network, wanted, plan, rng)
        result = replace(result, parameters=kept)
    local.note(parameters=sum(value.size for value in result.parameters.values()))
    return result
