"""Conformance of trainers: how a client learns, and a student."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from clients.data import Dataset, normalised, viewed
from clients.execution.isolation import Original
from clients.execution.trainer_calls import trained
from clients.models.factory import Parameters, build, parameters_of
from clients.points import Check
from clients.signatures import named_of
from clients.training.local_context import LocalContext
from strategies.conformance.checks import unlike
from strategies.conformance.forgetting import told_by_order
from strategies.conformance.made_up import PRIVATE, SMALL, answers
from strategies.teaching.student import VALIDATION

GIVEN = np.random.default_rng(5).permutation(60)[:36]
"""What is learned from, of 60 examples; not in the order in which they lie."""

TARGETS = torch.from_numpy((PRIVATE.labels[GIVEN] + 1) % 4)
"""Row i of example GIVEN[i]; not its label in the data set."""

ORDER = [(client_id, server_round) for client_id in (0, 1) for server_round in (1, 2)]


@dataclass(frozen=True, eq=False)
class Taught:
    """What came of a training.

    Attributes:
        losses: What the trainer returned.
        moved: By how much each parameter has.
        local: What it noted and keeps.
        given: The data set, indices and targets that it got.
    """

    losses: Any
    moved: Parameters
    local: LocalContext
    given: tuple[Dataset, Any, Tensor]


def by_row(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of each example [B]."""
    return cross_entropy(logits, targets, reduction="none")


def _taught(
    train: Any, dataset: Dataset = PRIVATE, loss: Any = by_row, client_id: int = 0,
    server_round: int = 1,
) -> Taught:  # fmt: skip
    """Let it train; a student's gets what it names of teachers' answers and a validation."""
    said = answers(3, len(GIVEN), 4)
    student: dict[str, Any] = {
        "teachers": lambda: said,
        "weights": lambda: torch.full((3, len(GIVEN)), 1 / 3),
        VALIDATION: lambda: lambda network: 0.0,
    }
    train = partial(train, **named_of(train, student))
    model = build(SMALL, PRIVATE.task, np.random.default_rng(0))
    start = deepcopy(parameters_of(model))
    given = deepcopy(dataset), GIVEN.copy(), TARGETS.clone()
    rng = np.random.default_rng([client_id, server_round])
    local, original = LocalContext(client_id, server_round), Original(model)
    losses = trained(train, model, *given, loss, rng, anchors={}, local=local)
    if fault := original.exchanged():
        raise ValueError(fault)
    moved = {n: v - start[n] for n, v in parameters_of(model).items()}
    return Taught(losses, moved, local, given)


def _alike(one: Taught, other: Taught) -> bool:
    return not any(unlike(one.moved[name], other.moved[name], 0.0) for name in one.moved)


def _trains(train: Any) -> str | None:
    """Trains the network in place, keeps its modules, and returns a loss of each epoch."""
    done = _taught(train)
    losses = done.losses
    if not isinstance(losses, list) or not all(isinstance(each, float) for each in losses):
        return f"returns {type(losses).__name__} {str(losses)[:60]}, expected a list of floats"
    if not np.isfinite(losses).all():
        return f"losses are {losses}"
    if not any(np.abs(each).max() > 0 for each in done.moved.values()):
        return "no parameter has moved"
    return None


def _trains_again(train: Any) -> str | None:
    """Does the same again with the same generator, and keeps nothing from client to client."""
    if not _alike(_taught(train), _taught(train)):
        return "ends elsewhere: does it draw from another generator, or keep something?"
    return None


def _in_any_order(train: Any) -> str | None:
    """Trains clients alike in any order and process, and leaves them the same state and notes."""

    def ask(train: Any, client_id: int, server_round: int) -> Sequence[Any]:
        done = _taught(train, client_id=client_id, server_round=server_round)
        kept = done.local.kept or {}
        left = [each for name in sorted(kept) for each in (len(name), kept[name])]
        return [*done.moved.values(), *left, *(n for _, n in sorted(done.local.notes.items()))]

    odd = told_by_order(train, ask, ORDER)
    if odd is None:
        return None
    return f"client {odd[0]} in round {odd[1]} learns otherwise behind others: is a global kept?"


def _sees_as_clients_do(train: Any) -> str | None:
    """Looks at inputs by `clients.data.normalised`, or the loop that ships: as its client sees."""
    dark = viewed(PRIVATE, np.zeros_like)
    if _alike(_taught(train), _taught(train, dark)):
        return "learns the same in the dark: a view (clients.view) would change nothing"
    return None


def _by_indices_and_targets(train: Any) -> str | None:
    """Learns from `indices` and `targets` alone: no other example, and no label of the data set."""
    others = np.setdiff1d(np.arange(60), GIVEN)
    inputs = PRIVATE.inputs.copy()
    inputs[others] = 7 - inputs[others]
    plain = _taught(train)
    if not _alike(plain, _taught(train, replace(PRIVATE, inputs=inputs))):
        return "examples that are not in `indices` change what it learns: take indices[batch]"
    if not _alike(plain, _taught(train, replace(PRIVATE, labels=PRIVATE.labels[::-1].copy()))):
        return "the data set's labels change what it learns: `targets` are what it is to learn"
    return None


def _pairs(train: Any) -> str | None:
    """Compares answers to `indices[batch]` with `targets[batch]`."""
    first = list[tuple[Any, Any]]()

    def watched(logits: Tensor, targets: Tensor) -> Tensor:
        if not first:
            first.append((logits.detach().clone(), targets.detach().clone()))
        return by_row(logits, targets)

    _taught(train, loss=watched)
    start = build(SMALL, PRIVATE.task, np.random.default_rng(0))
    with torch.inference_mode():
        inputs = np.ascontiguousarray(normalised(PRIVATE, GIVEN))
        expected = start(torch.from_numpy(inputs))
    for logits, targets in first:
        near = torch.cdist(logits.float().cpu(), expected) < 1e-4  # of what it augments nothing is
        fits = targets.cpu()[:, None] == TARGETS
        if odd := (near.any(1) & ~(near & fits).any(1)).nonzero().flatten().tolist():
            return f"row {odd[0]} of its first batch gets the target of another example"
    return None


def _by_its_loss(train: Any) -> str | None:
    """Minimises the loss that it is given."""

    def of_the_next(logits: Tensor, targets: Tensor) -> Tensor:
        return by_row(logits, (targets + 1) % 4)

    if _alike(_taught(train), _taught(train, loss=of_the_next)):
        return "another loss would change nothing: does it have one of its own?"
    return None


def _leaves_the_given(train: Any) -> str | None:
    """Leaves examples, indices and targets as they are."""
    dataset, indices, targets = _taught(train).given
    pairs = {
        "inputs of the data set": (dataset.inputs, PRIVATE.inputs),
        "labels of the data set": (dataset.labels, PRIVATE.labels),
        "`indices`": (indices, GIVEN),
        "`targets`": (targets, TARGETS),
    }
    odd = [name for name, (now, was) in pairs.items() if unlike(now, was, 0.0)]
    return f"changes {odd[0]} in place" if odd else None


TRAINER: tuple[Check, ...] = (
    _trains, _trains_again, _sees_as_clients_do, _by_indices_and_targets, _pairs,
    _by_its_loss, _leaves_the_given, _in_any_order,
)  # fmt: skip
