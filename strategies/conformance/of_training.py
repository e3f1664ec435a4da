"""Conformance of how clients learn: trainers."""

from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch

from clients.execution.isolation import Original
from clients.execution.trainers import trained
from clients.models.factory import build, parameters_of
from clients.points import Check
from clients.training.local_context import LocalContext
from strategies.conformance.checks import unlike
from strategies.conformance.made_up import PRIVATE, SMALL

# --- trainers ---


def _taught(train: Any, seed: int = 0, local: LocalContext | None = None) -> tuple[Any, Any]:
    model = build(SMALL, PRIVATE.task, np.random.default_rng(0))
    start = deepcopy(parameters_of(model))
    labels = torch.from_numpy(PRIVATE.labels)
    loss = partial(torch.nn.functional.cross_entropy, reduction="none")
    what = PRIVATE, np.arange(60), labels, loss, np.random.default_rng(seed)
    told = local or LocalContext(0, 1)
    original = Original(model)
    losses = trained(train, model, *what, anchors={}, local=told)
    if fault := original.exchanged():
        raise ValueError(fault)
    return losses, {n: v - start[n] for n, v in parameters_of(model).items()}


def _trains(train: Any) -> str | None:
    """Trains the network in place, keeps its modules, and returns a loss of each epoch."""
    losses, moved = _taught(train)
    if not isinstance(losses, list) or not all(isinstance(each, float) for each in losses):
        return f"returns {type(losses).__name__} {str(losses)[:60]}, expected a list of floats"
    if not np.isfinite(losses).all():
        return f"losses are {losses}"
    if not any(np.abs(each).max() > 0 for each in moved.values()):
        return "no parameter has moved"
    return None


def _trains_again(train: Any) -> str | None:
    """Does the same again with the same generator, and keeps nothing from client to client."""
    first, second = _taught(train), _taught(train)
    if any(unlike(first[1][name], second[1][name], 0.0) for name in first[1]):
        return "ends elsewhere: does it draw from another generator, or keep something?"
    return None


TRAINER: tuple[Check, ...] = (_trains, _trains_again)
