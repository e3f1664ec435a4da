"""Conformance of networks, and of functions that go to where they are: models, probes."""

from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from clients.data import Dataset, normalised
from clients.models.factory import build, parameters_of
from clients.points import Check
from clients.signatures import named_of
from strategies.conformance.checks import shape_fault, unlike
from strategies.conformance.made_up import PRIVATE, network


# --- models ---
def _answers(model: Any, dataset: Dataset = PRIVATE) -> str | None:
    """Answers inputs [B, 1, 4, 4] of four classes by logits [B, 4], each for itself."""
    built = build(model, dataset.task, np.random.default_rng(0)).eval()
    inputs = torch.from_numpy(np.ascontiguousarray(normalised(dataset, np.arange(6))))
    with torch.inference_mode():
        logits, alone = built(inputs), built(inputs[:1])
    if fault := shape_fault(logits, (6, 4)):
        return fault
    return "an answer depends on the other inputs" if unlike(logits[:1], alone, 1e-4) else None


def _built_again(model: Any) -> str | None:
    """Draws the same parameters again with the same generator, and others with another."""
    one, same, other = (
        parameters_of(build(model, PRIVATE.task, np.random.default_rng(seed))) for seed in (0, 0, 1)
    )
    if any(unlike(one[name], same[name], 0.0) for name in one):
        return "the same seed gives other parameters: torch's generator is the one to draw from"
    if not any(unlike(one[name], other[name]) for name in one):
        return "another seed gives the same parameters"
    return None


MODEL: tuple[Check, ...] = (_answers, _built_again)


# --- functions that go to networks ---
def _finds(function: Any, model: nn.Module, seed: int = 0) -> dict[str, float]:
    offered: dict[str, Any] = {
        "rng": partial(np.random.default_rng, seed),
        "client_id": lambda: 1,
        "server_round": lambda: 1,
        "task": lambda: PRIVATE.task,
    }
    ids = np.arange(20)
    inputs = torch.from_numpy(np.ascontiguousarray(normalised(PRIVATE, ids)))
    labels = torch.from_numpy(PRIVATE.labels[ids])
    found = function(model.eval(), inputs, labels, **named_of(function, offered))
    return {name: float(value) for name, value in found.items()}


def _finds_numbers(function: Any) -> str | None:
    """Returns finite numbers by name."""
    found = _finds(function, network())
    if not found:
        return "returns nothing"
    odd = [name for name, value in found.items() if not np.isfinite(value)]
    return f"'{odd[0]}' is {found[odd[0]]}" if odd else None


def _finds_again(function: Any) -> str | None:
    """Finds the same again in the same network, and leaves it as it was."""
    model = network().eval()
    before = deepcopy(parameters_of(model))
    first, second = _finds(function, model), _finds(function, model)
    if any(unlike(before[name], value, 0.0) for name, value in parameters_of(model).items()):
        return "changes the network's parameters"
    if first != second:
        return "finds something else: is the network in train mode, or another generator used?"
    return None


PROBE: tuple[Check, ...] = (_finds_numbers, _finds_again)
