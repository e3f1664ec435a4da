"""Conformance of networks, their shapes, and functions that go to where they are: probes."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from clients.data import Dataset, normalised
from clients.execution.isolation import lent
from clients.models.factory import Parameters, build, parameters_of
from clients.points import Check
from clients.population.shape_plans import OFFERED as OF_SHAPES
from clients.population.shape_plans import Plan, carried_over, chosen, variant_of
from clients.signatures import named_of, require_given
from clients.training.local_context import noted
from strategies.conformance.checks import shape_fault, unlike
from strategies.conformance.made_up import PRIVATE, SMALL, network


# --- models ---
def _answers(model: Any, dataset: Dataset = PRIVATE) -> str | None:
    """Answers inputs [B, 1, 4, 4] of four classes by logits [B, 4], each for itself."""
    built = build(model, dataset.task, np.random.default_rng(0)).eval()
    inputs = torch.from_numpy(np.ascontiguousarray(normalised(dataset, np.arange(6))))
    with torch.inference_mode():
        logits, alone = built(inputs), torch.cat([built(each[None]) for each in inputs])
    if fault := shape_fault(logits, (6, 4)):
        return fault
    return "an answer depends on the other inputs" if unlike(logits, alone, 1e-4) else None


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


# --- shapes ---


def _trained(seed: int = 0) -> nn.Module:
    """Build a network that has left its start."""
    model = build(SMALL, PRIVATE.task, np.random.default_rng(0))
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.from_numpy(rng.normal(scale=0.1, size=parameter.shape)))
    return model


def _plans(shape: Any) -> list[Plan]:
    """Let four clients choose in five rounds; return the plans that are not empty, each once."""
    inputs = torch.from_numpy(np.ascontiguousarray(normalised(PRIVATE, np.arange(20))))
    examples = inputs, torch.tensor(PRIVATE.labels[:20])
    found: list[Plan] = []
    for client_id in range(4):
        plan: Plan = {}
        for server_round in range(1, 6):
            told = {"client_id": client_id, "server_round": server_round, "losses": [1.0, 1.0]}
            told |= {"note": partial(noted, {}, "note"), "rng": np.random.default_rng(server_round)}
            name = variant_of(shape, "small", SMALL, plan)
            now = getattr(name, "model", SMALL)
            start = _trained() if not plan else build(now, PRIVATE.task, np.random.default_rng(0))
            before, plan = plan, chosen(shape, start, examples, plan, **told)
            found += [plan] if plan is not before else []
    return found


def _carried(shape: Any, plan: Plan, seed: int = 0) -> Parameters:
    name = variant_of(shape, "small", SMALL, plan)
    wanted = build(name.model, PRIVATE.task, np.random.default_rng(0))  # type: ignore[attr-defined]
    return carried_over(shape, _trained(seed), wanted, plan, np.random.default_rng(0))


def _chooses(shape: Any) -> str | None:
    """Chooses a plan, arrays of numbers by name, for one of four clients in five rounds."""
    require_given(shape.choose, 3, OF_SHAPES, "choose")
    require_given(shape.apply, 2, (), "apply")
    return None if _plans(shape) else "no client's network changes its shape"


def _chooses_again(shape: Any) -> str | None:
    """Chooses the same again, and keeps nothing."""
    one, other = _plans(shape), _plans(shape)
    same = [a.keys() == b.keys() for a, b in zip(one, other, strict=False)]
    if len(one) != len(other) or not all(same):
        return "a second time it chooses otherwise: another generator?"
    pairs = [(a[n], b[n]) for a, b in zip(one, other, strict=True) for n in a]
    odd = any(unlike(a, b, 0.0) for a, b in pairs)
    return "a second time it chooses otherwise: another generator?" if odd else None


def _applies(shape: Any) -> str | None:
    """Makes one network, by names and shapes, of one as built and one as training left it."""
    for plan in _plans(shape)[:1]:
        _carried(shape, plan)
    return None


def _carries_over(shape: Any) -> str | None:
    """Carries over what was learned: of two networks it makes two."""
    for plan in _plans(shape)[:1]:
        one, other = _carried(shape, plan), _carried(shape, plan, seed=1)
        if not any(unlike(one[name], other[name]) for name in one):
            return "what training left is lost: the same comes of any network"
    return None


SHAPE: tuple[Check, ...] = (_chooses, _chooses_again, _applies, _carries_over)


# --- functions that go to networks ---
def _finds(plugin: Any, model: nn.Module, seed: int = 0) -> dict[str, float]:
    function = getattr(plugin, "of", plugin)  # of an `Ask`
    offered: dict[str, Any] = {
        "rng": partial(np.random.default_rng, seed),
        "client_id": lambda: 1,
        "server_round": lambda: 1,
        "task": lambda: PRIVATE.task,
        "class_shares": lambda: np.full(4, 0.25),
        "own_examples": lambda: np.arange(20) % 2 == 0,
    }
    ids = np.arange(20)
    inputs = torch.from_numpy(np.ascontiguousarray(normalised(PRIVATE, ids)))
    labels = torch.tensor(PRIVATE.labels[ids])
    with lent(model), torch.enable_grad():
        found = function(model, inputs, labels, **named_of(function, offered))
    return {name: float(value) for name, value in found.items()}


def _finds_numbers(function: Any) -> str | None:
    """Returns finite numbers by name."""
    found = _finds(function, network())
    if not found:
        return "returns nothing"
    odd = [name for name, value in found.items() if not np.isfinite(value)]
    return f"'{odd[0]}' is {found[odd[0]]}" if odd else None


def _finds_again(function: Any) -> str | None:
    """Finds the same again in the same network, whose modules stay those that they are."""
    model = network().eval()
    first, second = _finds(function, model), _finds(function, model)
    if first != second:
        return "finds something else: is the network in train mode, or another generator used?"
    return None


PROBE: tuple[Check, ...] = (_finds_numbers, _finds_again)
