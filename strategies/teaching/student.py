"""Teaching the student with targets that come chunk by chunk."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from clients.data import Dataset
from clients.messages.answers import Stacked, rows_at
from clients.messages.requests import TARGETS
from clients.models.factory import Parameters
from clients.signatures import named_of, names
from clients.training.evaluation import predict
from clients.training.loop import Trainer
from clients.training.objective import Anchors, Objective
from strategies.aggregation.ensemble import Ensemble
from strategies.teaching.proxy_split import Ids

WEIGHTS = "weights"
"""The anchor of a student's objective that is no field: the trust on each answer."""

Imitate = Callable[..., list[float]]
"""(ids [n], targets [n, C] or [n, S, C], epochs=...) -> mean loss of each epoch."""


def teach(
    imitate: Imitate,
    chunks: Sequence[Ids],
    ensembles: Iterable[Ensemble | None],
    epochs: int | None,
) -> tuple[list[float], list[Ensemble | None]]:
    """Teach one epoch chunk by chunk, as targets come, and the others on all examples together.

    Args:
        imitate: Trains the student.
        chunks: Which proxy examples each ensemble answers.
        ensembles: What is imitated; None where nobody answered. What nobody covers is dropped.
        epochs: How many in all, >= 0; None = there is one chunk, and `imitate` knows.

    Returns:
        Mean loss per example of each epoch, none where nothing is covered; and the ensembles.
    """
    seen: list[Ensemble | None] = []
    lessons: list[tuple[Ids, Tensor]] = []
    total = 0.0
    for ids, ensemble in zip(chunks, ensembles, strict=True):
        seen.append(ensemble)
        if ensemble is None or not ensemble.covered.any():
            continue
        lessons.append((ids[ensemble.covered_inputs.numpy()], ensemble.targets_by_input))
        if epochs is not None and epochs > 0:
            (loss,) = imitate(*lessons[-1], epochs=1)
            total += loss * len(lessons[-1][0])
    if not lessons or epochs == 0:
        return [], seen
    ids = np.concatenate([ids for ids, _ in lessons])
    targets = torch.cat([targets for _, targets in lessons])
    if epochs is None:
        return imitate(ids, targets), seen
    return [total / len(ids), *imitate(ids, targets, epochs=epochs - 1)], seen


def learned_of(chunks: Sequence[Ids], ensembles: Sequence[Ensemble | None]) -> Parameters:
    """Return what there was to learn in a round, as it is fed back.

    Args:
        chunks: Which proxy examples each ensemble answers.
        ensembles: None where nobody answered.

    Returns:
        `ids` [n] of the examples that somebody covers and `targets` [n, C] or [n, S, C]; nothing
        where there are none.
    """
    there = [(ids, each) for ids, each in zip(chunks, ensembles, strict=True) if each is not None]
    ids = [own[each.covered_inputs.numpy()] for own, each in there]
    if not sum(map(len, ids)):
        return {}
    targets = torch.cat([each.targets_by_input for _, each in there])
    return {"ids": np.concatenate(ids), TARGETS: targets.numpy()}


def anchors_of(objective: Objective, ensemble: Ensemble, student: nn.Module) -> Anchors:
    """Return what a student's objective compares with, of all teachers' answers.

    Args:
        objective: Its `anchors` are names of fields, or `WEIGHTS`: the trust on each answer [K, n].
        ensemble: Of all answers.
        student: On whose device they go.

    Returns:
        By name: of a field with a row for each input those of the n covered ones, [K, n, ...],
        which an objective indexes by `outputs.rows`; with several sites [K, n, S, ...] of what has
        a row for each. Of another [K, ...]. K tensors where teachers' are of unlike shapes.
    """
    assert ensemble.whole is not None, "Teachers.want_all"
    answers, weights = ensemble.whole
    inputs, sites = ensemble.covered_inputs.nonzero()[:, 0], answers.sites
    rows = rows_at(inputs, sites)
    there = answers.at(inputs)
    known = {**there.fields, WEIGHTS: weights[:, rows]}
    if sites > 1:
        length = len(inputs) * sites
        known |= {n: _by_input(known[n], sites, length) for n in known if n not in there.per_client}
    device = next(student.parameters()).device
    named = {name: known[name] for name in objective.anchors}
    anchors: Anchors = tree_map(lambda each: each.to(device), named)
    return anchors


TAUGHT = ("teachers", "weights")
"""What a student's trainer gets if it names it: see `taught`."""

VALIDATION = "validation"
"""What it gets, too: see `validated`."""


def validated(distil: Trainer, proxy: Dataset, ids: Ids) -> Trainer:
    """Bind the validation that a student's trainer names, on labelled proxy examples.

    Args:
        distil: Anyone's trainer.
        proxy: The proxy set.
        ids: Of the examples whose labels the server knows [M].

    Returns:
        It, with `validation`: of a network its accuracy there; of a task that is measured otherwise
        less its loss.

    Raises:
        ValueError: It names it, and there are no such examples.
    """
    if not names(distil, VALIDATION):
        return distil
    if not len(ids):
        raise ValueError(
            "strategy.distil measures the student on labelled proxy examples: expected "
            "strategy.proxy_split.calibration_share > 0, of which the server knows the labels"
        )

    def validation(network: nn.Module) -> float:
        values = proxy.task.measures(predict(network, proxy, ids), proxy.labels[ids])
        return values.get("accuracy", -values["loss"])

    return partial(distil, **{VALIDATION: validation})


def taught(ensemble: Ensemble, distil: Trainer) -> Trainer:
    """Bind what a student's trainer names of all that teachers said.

    Args:
        ensemble: Of all answers.
        distil: Anyone's trainer.

    Returns:
        It, with `teachers`, the answers to the n examples that it learns from (as many rows as it
        gets targets), fields and all, and `weights`, the trust on each [K, n].
    """
    if not any(names(distil, name) for name in TAUGHT):
        return distil
    assert ensemble.whole is not None, "Teachers.want_all"
    answers, weights = ensemble.whole
    inputs = ensemble.covered_inputs.nonzero()[:, 0]
    there, trust = answers.at(inputs), weights[:, rows_at(inputs, answers.sites)]
    made = {"teachers": lambda: there, "weights": lambda: trust}
    return partial(distil, **named_of(distil, made))


def _by_input(array: Stacked, sites: int, rows: int) -> Stacked:
    """Sort what has so many rows by input: [K, n*S, ...] -> [K, n, S, ...]; the rest stays."""
    if isinstance(array, tuple):
        return tuple(torch.unflatten(a, 0, (-1, sites)) if len(a) == rows else a for a in array)
    return torch.unflatten(array, 1, (-1, sites)) if array.shape[1] == rows else array


def epochs_of(distil: Trainer) -> int:
    """Read how many epochs a trainer is bound to.

    Args:
        distil: `clients.training.loop.train` with its numbers bound.

    Returns:
        The number, >= 0.

    Raises:
        ValueError: None is bound, or a number of it is of a lesson as a whole.
    """
    parameter = inspect.signature(distil).parameters.get("epochs")
    numbers = getattr(distil, "keywords", {})  # also a wrapper's **numbers
    by_lesson = {n for n in ("steps", "stop_below") if numbers.get(n) is not None}
    if numbers.get("scheduler") is not None and numbers.get("scheduler_by") != "round":
        by_lesson.add("scheduler_by")
    if by_lesson:
        raise ValueError(
            f"strategy.distil.{min(by_lesson)}: expected strategy.proxy_split.chunks=1, for it "
            "would begin anew with each chunk"
        )
    bound = numbers.get("epochs")
    epochs = bound if parameter is None else parameter.default
    if not isinstance(epochs, int):
        raise ValueError(
            "strategy.proxy_split.chunks > 1: expected distil to be a trainer with epochs bound"
        )
    return epochs
