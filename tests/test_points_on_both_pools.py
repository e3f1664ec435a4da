"""Points where an idea goes in, each shipped option: the same bits on both pools, and together."""

from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from clients.models import mlp
from clients.training.local_context import LocalContext
from clients.training.loop import train
from conf.building import instantiate
from sim.engine.grid import PoolGrid
from strategies.aggregation.scorers import own_odds, validation_accuracy
from strategies.server.averaging import Averaging
from tests.federations import (
    SEED,
    Run,
    distillation,
    open_pool,
    run_ours,
    simulated,
    tiny_clients,
    trainer,
)
from tests.places import CONF


def shipped(kind: str, section: str = "clients") -> dict[str, Any]:
    """Every option of one kind but "none"."""
    files = sorted((CONF / section / kind).glob("*.yaml"))
    return {
        f"{kind} {path.stem}": {kind: instantiate(OmegaConf.load(path))}
        for path in files
        if path.stem != "none"
    }


def remembering(model: Any, *what: Any, local: LocalContext, **numbers: Any) -> Any:
    """Go on from the mean of all parameters that the client had, and note how long."""
    losses = train(model, *what, **numbers)
    for name, parameter in model.named_parameters():
        if name in local.state:
            parameter.data.lerp_(parameter.data.new_tensor(local.state[name]), 0.5)
        local.state[name] = parameter
    local.note(rounds=float(local.state.get("rounds", 0)) + 1)
    local.state["rounds"] = np.array(local.notes["rounds"])
    return losses


POINTS: dict[str, dict[str, Any]] = {
    **shipped("view"),
    **shipped("condition"),
    "trainer": {"train": partial(remembering, **trainer().keywords)},
}
"""Under any strategy, alone and together."""
OF_ANSWERS = {
    **shipped("shape"), **shipped("discriminator", "strategy"), **shipped("selection", "strategy"),
}  # fmt: skip
"""Under distillation, which has answers to weigh and to choose among."""
CODECS = shipped("codec")
"""Under averaging, whose clients send parameters."""
ALIKE = "all trusted alike"
RUNS = [
    *(pytest.param(name, False, marks=pytest.mark.slow) for name in POINTS),
    *((name, False) for name in CODECS),
    *((name, True) for name in (*POINTS, *OF_ANSWERS)),
]


def run(name: str, pool: str, size: int, distils: bool) -> Run:
    """Run two rounds of four clients, in groups of this size."""
    small = {"architectures": ["mlp"] * 4, "student": partial(mlp, hidden=(8,))}
    cut = np.split(np.arange(120), [17, 50, 83])
    point = (POINTS | OF_ANSWERS | CODECS).get(name, {})
    of_strategy = {k: v for k, v in point.items() if k in ("discriminator", "selection")}
    clients = tiny_clients(4, cut, **small, **({} if of_strategy else point))
    weighed = {"scorer": validation_accuracy, "calibration_share": 0.3}
    if "discriminator" in of_strategy:
        weighed = {"scorer": own_odds}
    elif name == ALIKE:  # to which odds that are all the same come
        weighed = {}
    strategy = distillation(clients, **weighed, **of_strategy) if distils else Averaging(seed=SEED)
    with open_pool(pool, simulated(clients, strategy)) as opened:
        grid = PoolGrid(opened, clients.architectures, group_size=size)
        return run_ours(opened, clients, strategy, rounds=2, grid=grid)


run_once = cache(run)
"""For what is compared with, which is the same again and again."""


def values(found: Run) -> list[tuple[str, dict[str, float]]]:
    """What every client said of itself."""
    return [(str(e.client_id), e.metrics) for r in found.reports for e in r.exchanges]


def test_how_many_points_were_found() -> None:
    assert len(POINTS) == 5 + 6 + 1
    assert (len(CODECS), len(OF_ANSWERS)) == (7, 2 + 6 + 4)


@pytest.mark.parametrize(("name", "distils"), RUNS)
def test_a_point_has_the_same_bits_on_both_pools_and_moves_a_number(
    name: str, distils: bool
) -> None:
    here, there = (run(name, pool, 2, distils) for pool in ("inline", "ray"))
    assert here.sha256 == there.sha256
    assert values(here) == values(there)
    assert not any(e.failure for r in here.reports for e in r.exchanges)
    usual = run_once(ALIKE if "discriminator" in name else "none", "inline", 2, distils)
    if name in POINTS:
        assert values(here) != values(usual)
    assert here.sha256 != usual.sha256


@pytest.mark.parametrize("name", POINTS)
def test_clients_learn_alone_what_they_learn_together(name: str) -> None:
    alone, together = (run(name, "inline", size, False) for size in (1, 4))
    for key, value in alone.parameters.items():
        np.testing.assert_allclose(together.parameters[key], value, rtol=5e-4, atol=5e-5)
