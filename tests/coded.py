"""Federated averaging over clients whose parameters travel by a codec."""

from functools import partial
from typing import Any

import numpy as np

from clients.models import mlp
from sim.engine.grid import PoolGrid
from strategies.server.averaging import Averaging
from tests.federations import SEED, Run, open_pool, run_ours, simulated, tiny_clients

MODEL = partial(mlp, hidden=(8,))
SAME: dict[str, Any] = {"architectures": ["mlp"] * 4, "student": MODEL}


def averaged(
    codec: Any = None, pool: str = "inline", make: Any = None, rounds: int = 2, **more: Any
) -> Run:
    size = more.pop("group_size", 4)
    clients = tiny_clients(4, codec=codec, **{**SAME, **more})
    strategy = Averaging(seed=SEED) if make is None else make()
    app = simulated(clients, strategy)
    with open_pool(pool, app) as opened:
        about: dict[str, Any] = {"profiles": clients.profiles, "encode": app.encode_request}
        grid = PoolGrid(opened, clients.architectures, group_size=size, **about)
        return run_ours(opened, clients, strategy, rounds=rounds, grid=grid)


def trained(run: Run, server_round: int = 1) -> list[Any]:
    return [e for e in run.reports[server_round - 1].exchanges if e.phase == "train"]


def failures(run: Run) -> list[tuple[int, str]]:
    return [(e.client_id, e.failure) for e in run.grid.exchanges if e.failure]


def apart(one: Run, other: Run) -> float:
    return max(np.abs(other.parameters[n] - v).max() for n, v in one.parameters.items())
