"""All options on: bits are those of config and seed, not of pool, workers or scheduling."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import Strategy

from clients.execution.executor import Trained
from clients.models import mlp
from clients.models.discriminator import DiscriminatorRecipe
from clients.population.clients import SimulatedClients
from clients.training.loop import train
from sim.engine.grid import PoolGrid
from sim.tracking.run_folder import sha256_of_arrays
from strategies.aggregation.scorers import own_odds
from strategies.server.averaging import Averaging
from tests.federations import (
    SEED,
    Run,
    distillation,
    open_pool,
    run_ours,
    simulated,
    tiny_clients,
)

OPTIMIZER = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
UNEQUAL = np.split(np.arange(120), np.cumsum([7, 20, 12, 33, 9, 16, 5, 11]))
MLP = partial(mlp, hidden=(8,))
KINDS = ["mlp", "linear", "mlp", "mlp", "linear", "mlp", "mlp", "linear", "mlp"]


def nine(**changes: Any) -> SimulatedClients:
    """Nine clients of unequal size, six of them alike."""
    training = partial(train, epochs=2, batch_size=8, optimizer=OPTIMIZER, max_grad_norm=1.0)
    parts = {"architectures": KINDS, "train": training}
    return tiny_clients(9, UNEQUAL, **(parts | changes))


def averaging(clients: SimulatedClients, overlap: bool) -> Strategy:
    return Averaging(seed=SEED, fraction_train=0.8)


def everything_on(clients: SimulatedClients, overlap: bool) -> Strategy:
    """DLAD over two rounds, in chunks, encoded, fed back; half the cohort is drawn anew."""
    return distillation(
        clients,
        scorer=own_odds,
        discriminator=DiscriminatorRecipe(inputs="features"),
        answers="float16",
        chunks=2,
        probe_examples=5,
        fraction=0.8,
        feed_back=True,
        overlap=overlap,
    )


def run(
    make: Callable[[SimulatedClients, bool], Strategy],
    clients: SimulatedClients,
    kind: str,
    workers: int,
    group_size: int,
) -> Run:
    with open_pool(kind, simulated(clients), workers) as pool:
        names, cost = clients.architectures, clients.costs()
        grid = PoolGrid(pool, names, group_size=group_size, cost=cost)
        strategy = make(clients, pool.concurrent)
        return run_ours(pool, clients, strategy, rounds=2, grid=grid, quorum=0.2)


def bits(result: Run) -> tuple[str, str]:
    """Hash the final student, and what every exchange came to."""
    exchanges = [str(report.exchanges) for report in result.reports]
    assert not any(e.failure for report in result.reports for e in report.exchanges)
    return sha256_of_arrays(result.parameters), "".join(exchanges)


CASES = [
    (averaging, {"architectures": ["linear"] * 9}),
    (everything_on, {}),
]


@cache
def reference(case: int) -> tuple[str, str]:
    make, changes = CASES[case]
    return bits(run(make, nine(**changes), "inline", 1, group_size=2))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_bits_do_not_depend_on_pool_or_workers(workers: int) -> None:
    for case, (make, changes) in enumerate(CASES):
        there = bits(run(make, nine(**changes), "ray", workers, group_size=2))
        assert there == reference(case), make.__name__


@pytest.mark.parametrize(("make", "changes"), CASES, ids=["averaging", "dlad"])
def test_together_and_in_larger_groups_the_numbers_are_the_same(
    make: Callable[[SimulatedClients, bool], Strategy], changes: dict[str, Any]
) -> None:
    alone = run(make, nine(together=False, **changes), "inline", 1, 1)
    for group_size in (1, 2, 9):
        together = run(make, nine(**changes), "inline", 1, group_size)
        for name, value in alone.parameters.items():
            np.testing.assert_allclose(together.parameters[name], value, rtol=1e-3, atol=1e-4)
        if group_size == 1:
            assert bits(together) == bits(alone)


def test_a_group_is_trained_together() -> None:
    """Or the tests above compare the same thing twice."""
    like = {"architectures": ["mlp"] * 9, "student": MLP}
    alone = run(averaging, nine(together=False, **like), "inline", 1, 9)
    together = run(averaging, nine(**like), "inline", 1, 9)
    assert bits(together)[0] != bits(alone)[0]


def test_a_client_that_cannot_be_stacked_fails_alone() -> None:
    clients = nine(architectures=["mlp"] * 9)
    place = clients.place("cpu")
    rng = np.random.default_rng(0)
    good = dict(place.networks.fresh("mlp", rng).state_dict())
    misfit = {name: value[..., :1] for name, value in good.items()}
    for starts in ([good, misfit, good], [misfit, good, good]):
        outcomes = list(clients.train([0, 1, 2], starts, 1, "cpu"))
        wrong = next(k for k in range(3) if starts[k] is misfit)
        assert [isinstance(each, ValueError) for each in outcomes] == [k == wrong for k in range(3)]
        alone = nine(architectures=["mlp"] * 9, together=False)
        expected = list(alone.train([0, 1, 2], starts, 1, "cpu"))
        for one, other in zip(outcomes, expected, strict=True):
            if isinstance(one, Trained) and isinstance(other, Trained):
                assert sha256_of_arrays(one.parameters) == sha256_of_arrays(other.parameters)
        answers = list(place.answers("mlp", starts, clients.splits.proxy, np.arange(5)))
        assert [isinstance(each, ValueError) for each in answers] == [k == wrong for k in range(3)]


def test_nothing_to_answer_is_said() -> None:
    place = nine().place("cpu")
    own = dict(place.networks.of("mlp").state_dict())
    nothing = np.arange(0)
    for networks in ([own], [own, own]):
        for answer in place.answers("mlp", networks, nine().splits.proxy, nothing):
            assert "no inputs to answer" in str(answer)
