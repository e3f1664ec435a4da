"""Federations of mutual learning."""

from functools import partial
from typing import Any

import torch

from clients.mutual import group_heads, rules
from clients.mutual.lockstep import train_peers
from clients.population.clients import SimulatedClients
from strategies.aggregation.combiners import mean_of_probs
from strategies.aggregation.scorers import uniform
from strategies.server.mutual import MutualStrategy
from tests.federations import SEED, Run, open_pool, run_ours, simulated, student_of, tiny_clients
from tests.parts import whole

SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
FFL = partial(rules.ffl, ramp_epochs=1)


def mutual(
    clients: SimulatedClients, train_peers: Any = train_peers, **changes: Any
) -> MutualStrategy:
    parts: dict[str, Any] = {
        "student": student_of(clients),
        "student_model": clients.student,
        "models": clients.models,
        "architectures": clients.architectures,
        "proxy": clients.splits.proxy,
        "test": clients.splits.test,
        "seed": SEED,
        "train_peers": train_peers,
        "rule": FFL,
        "head": group_heads.Fusion,
        "optimizer": SGD,
        "epochs": 2,
        "batch_size": 8,
        "scorer": uniform,
        "combiner": mean_of_probs,
    }
    strategy: MutualStrategy = whole(MutualStrategy, parts | changes)
    return strategy


def run(kind: str, rounds: int = 2, **changes: Any) -> tuple[Run, MutualStrategy]:
    clients = tiny_clients()
    with open_pool(kind, simulated(clients)) as pool:
        strategy = mutual(clients, pool.train_peers(print), **changes)
        return run_ours(pool, clients, strategy, rounds), strategy
