"""Objectives that train some parameters only: the others are held to the bit, alone and stacked."""

from typing import Any

import numpy as np
import pytest

from clients.execution.model_cache import as_tensors
from clients.training.losses import cross_entropy
from clients.training.objective import Objective, OnLogits
from tests.baselines import alike, close, sgd, start_of, trained

ONLY = ("classifier.weight", "features.1.bias")
MOVING = {"momentum": 0.9, "weight_decay": 0.1}
GOAL = Objective(OnLogits(cross_entropy), only=ONLY)


def together(clients: Any, objective: Objective) -> list[Any]:
    starts = [as_tensors(start_of(clients))] * 4
    return list(clients.train(range(4), starts, 1, "cpu", objective))


def test_what_is_held_stands_still_alone_and_in_one_step() -> None:
    clients = alike(train=sgd(epochs=2, **MOVING))
    start, found = start_of(clients), together(clients, GOAL)
    assert not clients.place("cpu").notes  # in one step, that is
    for k in range(4):
        alone = trained(clients, k, 1, start, GOAL)
        close(found[k].parameters, alone)
        for name, array in start.items():
            for after in (alone[name], found[k].parameters[name]):
                assert np.array_equal(after, array) == (name not in ONLY)


def test_all_of_them_are_all() -> None:
    clients = alike(train=sgd(**MOVING))
    start = start_of(clients)
    whole = Objective(OnLogits(cross_entropy), only=tuple(start))
    close(trained(clients, 1, 1, start, whole), trained(clients, 1, 1, start), atol=0, rtol=0)


def test_what_a_network_does_not_have_is_named() -> None:
    clients = alike()
    odd = Objective(OnLogits(cross_entropy), only=("classifier.bias", "head"))
    said = "objective.only: no 'head', expected some of features.1.weight, "
    with pytest.raises(ValueError, match=said):
        trained(clients, 0, 1, start_of(clients), odd)
    assert all(said in str(error) for error in together(clients, odd))
