"""Ditto: networks of clients' own, held to the global model: by hand, both pools, resumed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from clients.app import SimulatedApp
from clients.training.losses import cross_entropy
from clients.training.objective import Objective, OnLogits
from sim.engine.grid import PoolGrid
from strategies.server.averaging import Averaging
from strategies.server.ditto import Ditto
from tests.baselines import alike, close, kept, played, sgd, start_of, trained
from tests.federations import SEED, handlers_of, inline, run_ours
from tests.quick_runs import federated, hashes

QUICK = [f"seed={SEED}", "clients=same", "clients.num_clients=4", "clients.training.epochs=1",
         "data=blobs", "partition=iid", "student=mlp", "student.hidden=[4]"]  # fmt: skip


def test_the_global_model_is_federated_averagings_to_the_bit() -> None:
    clients = alike()
    ditto, plain = played(clients, Ditto(seed=SEED), 2), played(clients, Averaging(seed=SEED), 2)
    assert ditto.sha256 == plain.sha256


def pull(gradients: Any, parameters: Any, anchors: Any) -> Any:
    """Add half of what the network is away from what it is held to."""
    away = {name: parameters[name] - anchors["to"][name] for name in gradients}
    return {name: gradient + 0.5 * away[name] for name, gradient in gradients.items()}


@pytest.mark.parametrize("group_size", [1, 4])
def test_own_networks_by_hand(group_size: int) -> None:
    clients = alike(train=sgd(epochs=2, momentum=0.5))
    strategy = Ditto(seed=SEED, weight=0.5, own_epochs=3)
    pool = inline(SimulatedApp(clients, handlers_of(strategy)))
    grid = PoolGrid(pool, clients.architectures, group_size=group_size)
    run = run_ours(pool, clients, strategy, rounds=2, grid=grid)
    objective = Objective(OnLogits(cross_entropy), correct=pull, anchors=("to",))
    received = [start_of(clients), played(clients, Averaging(seed=SEED)).parameters]
    for k in range(4):
        own = received[0]
        for server_round, sent in enumerate(received, 1):
            anchors = {"to": {n: torch.tensor(a) for n, a in sent.items()}}
            own = trained(clients, k, server_round, own, objective, anchors, epochs=3)
        close(kept(run, k), own)


def test_without_weight_it_is_local_training_and_with_much_a_step_from_the_global_model() -> None:
    clients = alike()
    free = played(clients, Ditto(seed=SEED, weight=0), 2)
    alone = start_of(clients)
    for server_round in (1, 2):
        alone = trained(clients, 3, server_round, alone)
    close(kept(free, 3), alone, atol=0, rtol=0)
    # At lr * weight = 1 a step goes to w - lr * gradient, wherever it begins: client 0 takes one.
    sent = [start_of(clients), played(clients, Averaging(seed=SEED)).parameters]
    before = trained(clients, 0, 1, sent[0])
    after = trained(clients, 0, 2, before)
    held = played(clients, Ditto(seed=SEED, weight=10.0), 2)
    close(kept(held, 0), {name: sent[1][name] + (after[name] - before[name]) for name in after})


def test_own_networks_are_what_is_measured() -> None:
    clients = alike()
    run = played(clients, Ditto(seed=SEED, weight=0.0))
    found = [e.metrics["accuracy"] for e in run.reports[0].exchanges if "accuracy" in e.metrics]
    assert len({*found}) > 1  # of one model they would be one
    for wrong in ({"weight": -1.0}, {"own_epochs": -1}):
        with pytest.raises(ValueError, match=f"strategy.{next(iter(wrong))}="):
            Ditto(seed=SEED, **wrong)


def test_both_pools_and_a_resumed_run_have_the_same_bits(tmp_path: Path) -> None:
    words = ["strategy=ditto", "probes=personal", "strategy.fraction_train=0.5", *QUICK]
    whole = federated(tmp_path / "whole", *words, "rounds=3")
    assert hashes(federated(tmp_path / "ray", *words, "rounds=3", sim="ray")) == hashes(whole)
    federated(tmp_path / "begun", *words, "rounds=2", "checkpoint_every=1")
    again = federated(tmp_path / "begun", resumed=["rounds=3"])
    assert hashes(again) == hashes(whole)
    line = json.loads((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < line["clients"]["own_accuracy"]["mean"] <= 1
