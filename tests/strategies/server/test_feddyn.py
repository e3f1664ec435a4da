"""FedDyn: bent objectives: by hand, as alpha goes to 0, both pools, resumed."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clients.app import SimulatedApp
from clients.models import resnet8
from clients.population.clients import SimulatedClients
from clients.training.losses import cross_entropy
from clients.training.objective import Objective, OnLogits
from sim.engine.grid import PoolGrid
from strategies.server.averaging import Averaging
from strategies.server.feddyn import FedDyn
from tests.baselines import alike, close, kept, mean, played, sgd, start_of, trained
from tests.federations import SEED, handlers_of, inline, run_ours, student_of
from tests.quick_runs import federated, hashes

ALPHA = 0.3


def dyn(clients: SimulatedClients, **numbers: Any) -> FedDyn:
    about = {"student": student_of(clients), "num_clients": 4, "seed": SEED, "alpha": ALPHA}
    return FedDyn(**(about | numbers))


def bend(gradients: Any, parameters: Any, anchors: Any) -> Any:
    return {
        name: gradient - anchors["g"][name] + ALPHA * (parameters[name] - anchors["w0"][name])
        for name, gradient in gradients.items()
    }


@pytest.mark.parametrize("group_size", [1, 4])
def test_two_rounds_by_hand(group_size: int) -> None:
    clients = alike(train=sgd(epochs=2))
    strategy = dyn(clients)
    pool = inline(SimulatedApp(clients, handlers_of(strategy)))
    grid = PoolGrid(pool, clients.architectures, group_size=group_size)
    run = run_ours(pool, clients, strategy, rounds=2, grid=grid)
    objective = Objective(OnLogits(cross_entropy), correct=bend, anchors=("g", "w0"))
    w = start_of(clients)
    h = {name: np.zeros_like(array) for name, array in w.items()}
    g = [dict(h) for _ in range(4)]
    for server_round in (1, 2):
        ends = []
        for k in range(4):
            anchors = {"g": {n: torch.tensor(a) for n, a in g[k].items()},
                       "w0": {n: torch.tensor(a) for n, a in w.items()}}  # fmt: skip
            ends.append(trained(clients, k, server_round, w, objective, anchors))
            g[k] = {n: g[k][n] - ALPHA * (ends[k][n] - w[n]) for n in w}
        h = {n: h[n] - ALPHA / 4 * sum(end[n] - w[n] for end in ends) for n in w}
        means = mean(ends, [1] * 4)
        w = {n: (means[n] - h[n] / ALPHA).astype(np.float32) for n in w}
    close(run.parameters, w)
    close(kept(run, 2, "gradient"), g[2])


def test_as_alpha_goes_to_0_the_mean_goes_on_by_all_its_moves() -> None:
    """Clients train plainly: w1 = 2 mean1 - w0, w2 = mean2 + (mean1 - w0) + (mean2 - w1)."""
    clients = alike()
    run = played(clients, dyn(clients, alpha=1e-9), rounds=2)
    w0 = start_of(clients)
    mean1 = played(clients, Averaging(seed=SEED, weigh_by="clients")).parameters
    w1 = {n: (2 * mean1[n] - w0[n]).astype(np.float32) for n in w0}
    mean2 = mean([trained(clients, k, 2, w1) for k in range(4)], [1] * 4)
    close(run.parameters, {n: mean2[n] + (mean1[n] - w0[n]) + (mean2[n] - w1[n]) for n in w0})


def test_half_a_cohort_moves_half_as_far() -> None:
    clients = alike()
    run = played(clients, dyn(clients, alpha=1e-9, fraction_train=0.5))
    half = Averaging(seed=SEED, weigh_by="clients", fraction_train=0.5)
    means, w0 = played(clients, half).parameters, start_of(clients)
    assert len(run.cohorts()[0]) == 2
    close(run.parameters, {n: means[n] + 0.5 * (means[n] - w0[n]) for n in w0})


def test_statistics_are_averaged_as_they_are() -> None:
    model = partial(resnet8, width=4)
    clients = alike(models={"mlp": model}, student=model)
    run, start = played(clients, dyn(clients, alpha=1e-9)), start_of(clients)
    after = mean([trained(clients, k, 1, start) for k in range(4)], [1] * 4)
    found = {name: array for name, array in run.parameters.items() if "running" in name}
    close(found, {name: after[name] for name in found})
    with pytest.raises(ValueError, match="strategy.alpha=0: expected > 0"):
        dyn(clients, alpha=0)


def test_both_pools_and_a_resumed_run_have_the_same_bits(tmp_path: Path) -> None:
    words = ["strategy=feddyn", "strategy.fraction_train=0.5", f"seed={SEED}", "clients=same",
             "clients.num_clients=4", "clients.training.epochs=1", "data=blobs", "student=mlp",
             "student.hidden=[4]"]  # fmt: skip
    whole = federated(tmp_path / "whole", *words, "rounds=3")
    assert hashes(federated(tmp_path / "ray", *words, "rounds=3", sim="ray")) == hashes(whole)
    federated(tmp_path / "begun", *words, "rounds=2", "checkpoint_every=1")
    again = federated(tmp_path / "begun", resumed=["rounds=3"])
    assert hashes(again) == hashes(whole)
