"""Objectives of a task: its loss in the place of cross-entropy, losses of rows as of examples."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from clients.data import Task
from clients.training.losses import cross_entropy
from clients.training.objective import Anchors, Loss, Objective, OnLogits, Outputs


def of_task(objective: Loss | Objective | None, task: Task) -> Loss | Objective:
    """Return what is minimised for labels: the task's loss in the place of cross-entropy.

    Args:
        objective: Of a method or a config; None = the task's loss.
        task: Of the data.

    Returns:
        The objective.
    """
    if objective is None or objective is cross_entropy:
        return task.loss
    if isinstance(objective, Objective) and isinstance(objective.loss, OnLogits):
        plain = objective.loss.loss is cross_entropy
        return replace(objective, loss=OnLogits(task.loss)) if plain else objective
    return objective


def of_examples(objective: Loss | Objective, task: Task) -> Loss | Objective:
    """Return what rows of answers cost as what examples cost: the mean over an example's rows.

    Args:
        objective: For rows of logits and targets [B*S, C]. `features` and `inputs` of its outputs
            stay those of the B examples.
        task: Says how outputs become rows.

    Returns:
        The same for outputs [B, *output_shape] and targets [B, S, C], of which a row of NaN has no
        target; it itself where an example has one row.
    """
    if task.rows is None:
        return objective
    if not isinstance(objective, Objective):
        return partial(_of_logits, loss=objective, rows=task.rows)
    if isinstance(objective.loss, OnLogits):
        loss: Any = OnLogits(partial(_of_logits, loss=objective.loss.loss, rows=task.rows))
    else:
        loss = partial(_of_outputs, loss=objective.loss, rows=task.rows)
    return replace(objective, loss=loss)


def _of_logits(
    outputs: Tensor, targets: Tensor, *, loss: Loss, rows: Callable[[Tensor], Tensor]
) -> Tensor:
    return _mean(partial(loss, rows(outputs)), targets)


def _of_outputs(
    outputs: Outputs,
    targets: Tensor,
    anchors: Anchors,
    *,
    loss: Callable[..., Tensor],
    rows: Callable[[Tensor], Tensor],
) -> Tensor:
    return _mean(lambda wanted: loss(_in_rows(outputs, rows), wanted, anchors), targets)


def _in_rows(outputs: Outputs, rows: Callable[[Tensor], Tensor]) -> Outputs:
    others = {name: _in_rows(each, rows) for name, each in outputs.others.items()}
    return replace(outputs, logits=rows(outputs.logits), others=others)


def _mean(loss: Callable[[Tensor], Tensor], targets: Tensor) -> Tensor:
    """Return each example's mean loss [B] over the rows that have a target [B, S, C]."""
    targets = targets.reshape(len(targets), -1, targets.shape[-1])  # [B, C] where there is one row
    known = ~targets.isnan().any(-1)
    wanted = torch.where(known[..., None], targets, 1 / targets.shape[-1])
    losses = torch.unflatten(loss(wanted.flatten(0, 1)), 0, known.shape)
    mean: Tensor = torch.where(known, losses, 0).sum(1) / known.sum(1).clamp_min(1)
    return mean
