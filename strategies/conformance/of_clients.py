"""Conformance of what clients are and do: trainers, views, conditions, fields, probes, models."""

from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from clients.data import Dataset, blobs, normalised
from clients.execution.isolation import Original, keeps_nothing
from clients.execution.trainers import require_offered, trained
from clients.messages.asked import Asked, asked_about
from clients.messages.field import Field
from clients.models import mlp
from clients.models.factory import build, parameters_of
from clients.population.plugins import CONDITION
from clients.population.views import PHASES, require_view, seen_by
from clients.signatures import named_of, unoffered
from clients.training.local_context import LocalContext
from strategies.conformance.checks import Check, shape_fault, unlike

PRIVATE, _ = blobs(num_examples=80, num_classes=4)
"""60 images 1x4x4 of four classes."""


SMALL = partial(mlp, hidden=(6,))


def network() -> nn.Module:
    """Build a network that draws a mask in training, as dropout does."""
    return nn.Sequential(build(SMALL, PRIVATE.task, np.random.default_rng(0)), nn.Dropout(0.5))


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


def _asks_for_what_there_is(train: Any) -> str | None:
    """Needs nothing that nobody gives."""
    require_offered(train, "clients.training", "teachers", "weights")
    return None


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


TRAINER: tuple[Check, ...] = (_asks_for_what_there_is, _trains, _trains_again)


# --- views and conditions ---


def _sees(view: Any) -> str | None:
    """Gives inputs of the same shape, finite, in every phase, and keeps nothing."""
    require_view(view, PRIVATE)
    return None


def _sees_again(view: Any) -> str | None:
    """Shows a client the same again, by its generator alone."""
    for phase in PHASES:
        key = np.random.SeedSequence(3)
        one, other = (
            normalised(seen_by(view, PRIVATE, 1, phase, key), np.arange(8)) for _ in range(2)
        )
        if unlike(one, other, 0.0):
            return f"in phase {phase} it shows something else: another generator?"
    return None


VIEW: tuple[Check, ...] = (_sees, _sees_again)


def _labels(condition: Any, client_id: int = 1, server_round: int = 1) -> Any:
    own = np.arange(40)
    offered: dict[str, Any] = {
        "ids": own.copy,
        "inputs": partial(normalised, PRIVATE, own),
        "rng": partial(np.random.default_rng, [0, client_id]),
        "round_rng": partial(np.random.default_rng, [1, client_id, server_round]),
    }
    given = PRIVATE.labels[own]
    with keeps_nothing(condition=condition):
        return condition(given, 4, client_id, server_round, **named_of(condition, offered))


def _labels_are_some(condition: Any) -> str | None:
    """Gives labels [n], of which -1 says unlabelled, or soft labels [n, C]."""
    if (name := unoffered(condition, 4, CONDITION)) is not None:
        return f"needs '{name}', and is given some of {', '.join(CONDITION)}"
    found = np.asarray(_labels(condition))
    if found.shape == (40,) and found.dtype.kind in "iu":
        low, high = int(found.min()), int(found.max())
        return None if low >= -1 and high < 4 else f"labels lie in {low}..{high}, expected -1..3"
    if found.shape != (40, 4):
        return f"gives {found.dtype} {found.shape}, expected [40] or [40, 4]"
    off = np.abs(found.sum(1) - 1).max() > 1e-5 or found.min() < 0
    return "rows of soft labels leave the simplex" if off else None


def _labels_again(condition: Any) -> str | None:
    """Gives the same labels again, and does not change those it is given."""
    first = np.array(_labels(condition))
    before = PRIVATE.labels.copy()
    if unlike(first, _labels(condition), 0.0):
        return "a second call gives others: another generator?"
    return "changes the data set" if unlike(before, PRIVATE.labels, 0.0) else None


CONDITIONS: tuple[Check, ...] = (_labels_are_some, _labels_again)


# --- fields, and functions that go to networks ---


def _asked(field: Field, ids: Any, model: nn.Module) -> Asked:
    own, negatives = np.arange(12), np.arange(40, 50)
    return asked_about(
        model, PRIVATE, ids, field.taps, indices=own, proxy=PRIVATE, negative_ids=negatives
    )


def _says(field: Field) -> str | None:
    """Is of its shape and dtype, and finite."""
    ids, model = np.arange(20, 30), network()
    said = field.said("field", _asked(field, ids, model))
    parts = field.encode("field", said, lambda name: np.random.default_rng(0))
    return field.fault_in("field", parts, len(ids), 4)


def _says_again(field: Field) -> str | None:
    """Says the same of the same network: it looks at it in eval mode, by its own generator."""
    model, ids = network(), np.arange(20, 30)
    first, second = (field.said("field", _asked(field, ids, model)) for _ in range(2))
    if unlike(first, second):
        return "says something else: is the network asked in train mode (evaluating, predict)?"
    return None


def _says_by_input(field: Field) -> str | None:
    """Speaks of the inputs that it is asked about now, row by row."""
    if not field.per_input:
        return None
    model, ids = network(), np.arange(20, 30)
    first = field.said("field", _asked(field, ids, model))
    turned = field.said("field", _asked(field, ids[::-1].copy(), model))
    if unlike(turned, first[::-1], 1e-4):
        return "its rows are those of other inputs: are ids of an earlier call used?"
    return None


FIELD: tuple[Check, ...] = (_says, _says_again, _says_by_input)


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


# --- partitions and models ---


def _cut(partition: Any, seed: int = 0) -> list[Any]:
    rng, ids = np.random.default_rng(seed), np.arange(60)
    offered: dict[str, Any] = {"ids": ids.copy, "inputs": partial(normalised, PRIVATE, ids)}
    return list(partition(PRIVATE.labels, 3, rng, **named_of(partition, offered)))


def _cuts(partition: Any) -> str | None:
    """Gives each client some examples, and no example to two of them."""
    found = _cut(partition)
    if len(found) != 3:
        return f"gives {len(found)} parts to 3 clients"
    if empty := [k for k, part in enumerate(found) if not len(part)]:
        return f"client {empty[0]} has no example"
    owned = np.concatenate([np.unique(part) for part in found])
    if owned.min() < 0 or owned.max() >= 60:
        return f"indices lie in {owned.min()}..{owned.max()}, expected 0..59"
    twice = len(owned) - len(np.unique(owned))
    return f"{twice} examples have two owners" if twice else None


def _cuts_again(partition: Any) -> str | None:
    """Cuts the same again with the same generator."""
    one, other = _cut(partition), _cut(partition)
    if any(not np.array_equal(mine, yours) for mine, yours in zip(one, other, strict=True)):
        return "the same seed gives other parts: another generator?"
    return None


PARTITION: tuple[Check, ...] = (_cuts, _cuts_again)


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
