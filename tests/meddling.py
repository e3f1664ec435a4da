"""Trainers that meddle with the network they are given, and a place to run them."""

import copy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from clients.data import classification
from clients.execution.executor import Lesson, Place, Trained
from clients.models import logistic_regression
from clients.training import loop as training
from clients.training.losses import cross_entropy
from tests.federations import tiny_clients, trainer

SHAPE, CLASSES = (1, 4, 4), 4


def plain(model: nn.Module, *given: Any, **numbers: Any) -> list[float]:
    return training.train(model, *given, **numbers)


def exchanging(model: Any, *given: Any, **numbers: Any) -> list[float]:
    """Put a copy of a layer where the layer was."""
    model.classifier = copy.deepcopy(model.classifier)
    return training.train(model, *given, **numbers)


def fit(
    place: Place,
    lessons: int = 1,
    only: int | None = None,
    loss: Any = cross_entropy,
    **changes: Any,
) -> list[Any]:
    """Train so many clients of an architecture, or only one, all from the same start."""
    name = "own"
    clients = tiny_clients()
    start = dict(place.networks.fresh(name, np.random.default_rng(3)).state_dict())
    private = clients.splits.private
    each = [
        Lesson(
            start,
            np.arange(20 * k, 20 * k + 20),
            torch.tensor(private.labels[20 * k : 20 * k + 20]),
            np.random.SeedSequence(k),
        )
        for k in range(lessons)
        if only in (None, k)
    ]
    return list(place.fit(name, private, each, loss, **changes))


def place_of(train: Any, model: Any = logistic_regression, together: bool = False) -> Place:
    numbers = trainer().keywords
    bound = partial(train, **numbers) if callable(train) else train
    return Place({"own": model}, classification(SHAPE, CLASSES), "cpu", bound, together)


def assert_same(mine: Any, other: Any) -> None:
    assert isinstance(mine, Trained), mine
    assert mine.losses == other.losses
    assert mine.parameters.keys() == other.parameters.keys()
    for name, value in mine.parameters.items():
        np.testing.assert_array_equal(value, other.parameters[name], err_msg=name)
