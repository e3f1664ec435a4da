"""The one training loop. Clients (labels) and the student (soft labels) both run it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clients.data import Dataset
from clients.data.batches_to_device import feed
from clients.seeding import seeded_torch
from clients.training.batches import passes
from clients.training.objective import Anchors, Loss, Objective, as_objective
from clients.training.optimizer_steps import Optimizer, stepper
from clients.training.schedules import By, Scheduler, rate_of
from clients.training.single_gradients import NetworkGradients, Precision


def train(
    model: nn.Module,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    targets: Tensor,
    objective: Loss | Objective,
    rng: np.random.Generator,
    *,
    epochs: Annotated[int, ">= 0"],
    batch_size: Annotated[int, ">= 1"],
    optimizer: Optimizer,
    max_grad_norm: Annotated[float, "> 0"] | None = None,
    autocast: Precision | None = None,
    steps: Annotated[int, ">= 0"] | None = None,
    drop_last: bool = False,
    scheduler: Scheduler | None = None,
    scheduler_by: By = "round",
    stop_below: Annotated[float, ">= 0"] | None = None,
    watch: Callable[[], bool] | None = None,
    watch_every: int = 100,
    anchors: Anchors | None = None,
) -> list[float]:
    """Train `model` in place by mini-batch descent on the mean of an objective.

    Args:
        model: Network from [B, C, H, W] to logits [B, classes]; left in train mode.
        dataset: Where the inputs are.
        indices: Which of its examples to use [n].
        targets: What the loss compares with, row i for `indices[i]`: labels [n] or probs [n, C].
        objective: What is minimised: a loss per example of logits and targets, or more than that.
        rng: Source of all randomness: the order of examples and torch's global generator.
        epochs: Passes over the examples, >= 0.
        batch_size: Examples per step, >= 1.
        optimizer: Makes a fresh optimiser from the parameters, e.g. a partial of torch.optim.SGD.
        max_grad_norm: Clip the gradient's total L2 norm to this, > 0; None = never.
        autocast: Let torch compute what bears it in this half precision; None = float32. Float16
            is not offered: without loss scaling its gradients underflow.
        steps: Optimiser steps in all, >= 0, in the place of epochs; None = epochs count.
        drop_last: Leave out what fills no batch at the end of an epoch, where anything fills one.
        scheduler: Of the learning rate, e.g. a partial of a class of torch.optim.lr_scheduler; None
            = it stays.
        scheduler_by: What turns it; a schedule by "round" is looked at outside, see
            `clients.training.schedules.of_round`.
        stop_below: Stop after an epoch whose loss fell by less than this share of the one before,
            >= 0; None = never.
        watch: Looks at the network after every so many steps; training ends when it says so.
        watch_every: So many, >= 1.
        anchors: What the objective compares with, on the model's device, beside `START`.

    Returns:
        Mean loss per example of each epoch, the last perhaps broken off, without the objective's
        penalty.

    Raises:
        ValueError: A number is out of range, or there is no example, no parameter to train, or not
            what the objective compares with.
        FloatingPointError: The loss of an epoch, or a parameter at the end, is not finite.
    """
    numbers = epochs, batch_size, max_grad_norm, autocast, steps, stop_below
    check_training(len(indices), len(targets), *numbers)
    gradients_of = NetworkGradients(model, as_objective(objective), anchors or {}, autocast)
    parameters = [*gradients_of.named.values()]
    if (epochs if steps is None else steps) and not parameters:
        raise ValueError("no parameter requires a gradient: expected at least one to train")
    step = stepper(optimizer, parameters)
    device = parameters[0].device if parameters else torch.device("cpu")
    targets = targets.to(device)
    model.train()
    losses, rate, taken = list[float](), rate_of(scheduler, scheduler_by, optimizer), 0
    with seeded_torch(rng), gradients_of.taps:
        for order in passes(len(indices), batch_size, rng, epochs, steps, drop_last):
            total, seen, ended = torch.zeros((), dtype=torch.float64, device=device), 0, False
            inputs = feed(dataset, (indices[batch] for batch in order), device)
            for batch, images in zip(order, inputs, strict=True):
                rows = torch.from_numpy(batch).to(device)
                values, gradients = gradients_of(images, targets[rows], rows)
                if max_grad_norm is not None:
                    gradients = clipped(gradients, max_grad_norm)
                step(gradients, rate(len(losses), taken))
                taken, seen = taken + 1, seen + len(batch)
                total += values.sum()
                if ended := watch is not None and taken % watch_every == 0 and watch():
                    break
            losses.append(float(total) / seen)
            if not np.isfinite(losses[-1]):
                raise loss_not_finite(losses[-1], len(losses), epochs if steps is None else None)
            if ended or is_flat(losses, stop_below):
                break
    if not finite(parameters):
        raise parameters_not_finite()
    return losses


def is_flat(losses: Sequence[float], share: float | None) -> bool:
    """Tell whether the last epoch's loss fell by less than a share of the one before; None = no."""
    if share is None or len(losses) < 2:
        return False
    return losses[-2] - losses[-1] < share * abs(losses[-2])


def loss_not_finite(loss: float, epoch: int, epochs: int | None) -> FloatingPointError:
    """Say that training diverged in an epoch (from 1), and what to do about it."""
    of = "" if epochs is None else f" of {epochs}"
    return FloatingPointError(f"loss is {loss} in epoch {epoch}{of}: lower lr or set max_grad_norm")


def parameters_not_finite() -> FloatingPointError:
    """Say that training diverged in its last step, and what to do about it."""
    return FloatingPointError("the last step left parameters that are not finite: lower lr")


def finite(parameters: Sequence[Tensor]) -> bool:
    """Tell whether all numbers are."""
    if not parameters:
        return True
    # A sum is finite only if its terms are: 0.05 ms where looking at each of 114,000 takes 0.34.
    if all(torch.stack([parameter.detach().sum() for parameter in parameters]).isfinite().tolist()):
        return True
    return all(bool(parameter.isfinite().all()) for parameter in parameters)  # or it overflowed


def clipped(gradients: Sequence[Tensor | None], max_norm: float) -> list[Tensor | None]:
    """Scale gradients so that their total L2 norm is at most `max_norm`.

    Args:
        gradients: One per parameter, or None; scaled in place.
        max_norm: > 0.

    Returns:
        The same gradients.
    """
    present = [gradient for gradient in gradients if gradient is not None]
    # torch's own 1e-6 keeps a zero gradient finite.
    factor = (max_norm / (nn.utils.get_total_norm(present) + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(present, factor)
    return list(gradients)


def check_training(
    num_examples: int,
    num_targets: int,
    epochs: int,
    batch_size: int,
    max_grad_norm: float | None,
    autocast: str | None,
    steps: int | None = None,
    stop_below: float | None = None,
) -> None:
    """Refuse what `train` cannot do; arguments as there, ValueError names the first bad one."""
    if num_examples == 0:
        raise ValueError("no examples to train on: expected at least 1")
    if num_targets != num_examples:
        raise ValueError(f"{num_targets} targets for {num_examples} examples")
    if epochs < 0:
        raise ValueError(f"epochs={epochs}: expected >= 0")
    if steps is not None and steps < 0:
        raise ValueError(f"steps={steps}: expected >= 0 or None")
    if stop_below is not None and not stop_below >= 0:
        raise ValueError(f"stop_below={stop_below}: expected >= 0 or None")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: expected >= 1")
    if max_grad_norm is not None and not max_grad_norm > 0:
        raise ValueError(f"max_grad_norm={max_grad_norm}: expected > 0 or None")
    if autocast not in (None, *get_args(Precision)):
        raise ValueError(f"autocast={autocast}: expected one of {get_args(Precision)} or None")


@contextmanager
def threads_of_torch(number: int | None) -> Iterator[None]:
    """Let torch compute with so many threads inside the block, and as before after it.

    Args:
        number: >= 1; None = as many as it has. Part of the bits: a sum that is split over threads
            is rounded in another order; how many cores there are is not.

    Yields:
        Nothing.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


PASSES = 3
"""Forward passes that a training step on an example is worth: itself, and twice as much back."""

Trainer = Callable[..., list[float]]
"""`train` with its keyword arguments bound, as `conf/` does with `_partial_: true`."""
