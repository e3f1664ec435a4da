"""Optimisers that clients keep: as one training of many rounds, by hand, on both pools, resumed."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clients.training.kept_optimizer import keep_optimizer
from clients.training.local_context import LocalContext
from clients.training.loop import train
from strategies.server.averaging import Averaging
from tests.baselines import alike, close, kept, played
from tests.federations import SEED
from tests.quick_runs import federated, hashes
from tests.small_problems import half_square, scalar_problem

KINDS = {
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adam": partial(torch.optim.Adam, lr=0.1),
    "adagrad": partial(torch.optim.Adagrad, lr=0.1),
}


def fitted(trainer: Any, epochs: int, calls: int, optimizer: Any) -> float:
    """Fit w = 1 to (2w - 3)^2 / 2 by so many trainings of so many steps; return w."""
    model, dataset = scalar_problem()
    state: dict[str, Any] = {}
    for _ in range(calls):
        local = LocalContext(0, 1, state=partial(dict, state))
        told = local.told(partial(trainer, epochs=epochs, batch_size=1, optimizer=optimizer))
        told(model, dataset, np.array([0]), torch.tensor([3.0]), half_square, rng())
        state = dict(local.kept or {})
    return float(model[1].weight.item())


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("kind", KINDS)
def test_rounds_are_as_one_training(kind: str) -> None:
    whole = fitted(train, 6, 1, KINDS[kind])
    assert fitted(keep_optimizer, 2, 3, KINDS[kind]) == pytest.approx(whole, abs=1e-6)
    assert fitted(train, 2, 3, KINDS[kind]) != pytest.approx(whole, abs=1e-3)


def test_momentum_by_hand() -> None:
    # Gradient 2 (2w - 3): -2, w = 1.2; -1.2 + .9 * -2 = -3, w = 1.5.
    assert fitted(keep_optimizer, 1, 2, KINDS["momentum"]) == pytest.approx(1.5, abs=1e-6)


def test_what_others_teach_begins_afresh() -> None:
    model, dataset = scalar_problem()
    local = LocalContext(0, 1, phase="digest", state=dict)
    numbers = {"epochs": 1, "batch_size": 1, "optimizer": KINDS["momentum"], "local": local}
    keep_optimizer(
        model, dataset, np.array([0]), torch.tensor([3.0]), half_square, rng(), **numbers
    )
    assert not local.kept


def test_without_memory_it_is_plain_training_to_the_bit() -> None:
    numbers = {"epochs": 2, "batch_size": 16, "optimizer": partial(torch.optim.SGD, lr=0.1)}
    found = [
        played(alike(train=partial(each, **numbers), together=False), Averaging(seed=SEED), 2)
        for each in (train, keep_optimizer)
    ]
    close(found[0].parameters, found[1].parameters)


def test_clients_keep_it_by_the_names_of_parameters() -> None:
    numbers = {"epochs": 1, "batch_size": 16, "optimizer": KINDS["adam"]}
    run = played(alike(train=partial(keep_optimizer, **numbers)), Averaging(seed=SEED), 2)
    state = kept(run, 1, "local")  # 48 examples: three steps in a round
    assert state["step/classifier.bias"] == 6
    assert state["exp_avg/classifier.weight"].shape == (4, 8)


def test_both_pools_and_a_resumed_run_have_the_same_bits(tmp_path: Path) -> None:
    words = ["strategy=averaging", "clients/training=kept_sgd", f"seed={SEED}", "clients=same",
             "clients.num_clients=4", "clients.training.epochs=1", "data=blobs", "student=mlp",
             "student.hidden=[4]"]  # fmt: skip
    whole = federated(tmp_path / "whole", *words, "rounds=3")
    assert hashes(federated(tmp_path / "ray", *words, "rounds=3", sim="ray")) == hashes(whole)
    federated(tmp_path / "begun", *words, "rounds=2", "checkpoint_every=1")
    again = federated(tmp_path / "begun", resumed=["rounds=3"])
    assert hashes(again) == hashes(whole)
    plain = federated(tmp_path / "plain", words[0], *words[2:], "rounds=3")
    assert hashes(plain) != hashes(whole)
