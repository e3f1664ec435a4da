"""One network trained by several processes, each on a share of every batch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clients.data import Dataset, normalised
from clients.execution.trainer_calls import numbers_of
from clients.models.factory import Parameters, parameters_of
from clients.mutual.lockstep import Link
from clients.seeding import seeded_torch
from clients.training.batches import passes
from clients.training.loop import (
    Trainer,
    check_training,
    clipped,
    finite,
    is_flat,
    loss_not_finite,
    parameters_not_finite,
)
from clients.training.objective import Loss
from clients.training.optimizer_steps import Optimizer, stepper
from clients.training.schedules import By, Scheduler, rate_of
from clients.training.single_gradients import Precision, half_precision


@dataclass(frozen=True, eq=False)
class Shard:
    """What training left, the same in every process.

    Attributes:
        parameters: And buffers.
        losses: Mean loss per example of each epoch.
        rng_state: Of the source of randomness.
    """

    parameters: Parameters
    losses: list[float]
    rng_state: Any


def require_shardable(train: Trainer) -> dict[str, Any]:
    """Return the numbers bound to `clients.training.loop.train`.

    Args:
        train: A trainer.

    Returns:
        Its keyword arguments.

    Raises:
        ValueError: It is somebody else's, of which nothing is known.
    """
    numbers = numbers_of(train)
    if numbers is None:
        raise ValueError("student_workers > 1: expected distil to be clients.training.loop.train")
    return numbers


def train_shard(
    link: Link,
    size: int,
    model: nn.Module,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    targets: Tensor,
    loss: Loss,
    rng: np.random.Generator,
    *,
    device: str,
    epochs: int,
    batch_size: int,
    optimizer: Optimizer,
    max_grad_norm: float | None = None,
    autocast: Precision | None = None,
    steps: int | None = None,
    drop_last: bool = False,
    scheduler: Scheduler | None = None,
    scheduler_by: By = "round",
    stop_below: float | None = None,
) -> Shard:
    """Do one process's share of `clients.training.loop.train`.

    All processes see the same batches; process r computes the loss of every `size`-th example from
    the r-th on, gradients are added up, and all take the same step. The result is that of one
    process but for the order in which float32 numbers are added: after an epoch of 50 steps the
    parameters agree to 1e-5 of the distance moved. Dropout draws other masks.

    Args:
        link: To the other processes.
        size: How many there are.
        model: Trained in place; without batch norm, whose statistics would be those of a share.
        dataset: As in `train`, like all that follows but `device`.
        indices: [n].
        targets: Labels [n] or probs [n, C].
        loss: Loss per example.
        rng: Source of all randomness.
        device: Where to compute.
        epochs: >= 0.
        batch_size: >= 1.
        optimizer: Makes a fresh optimiser.
        max_grad_norm: Clip to it, > 0; None = never.
        autocast: Half precision, or None.
        steps: In all, in the place of epochs, or None.
        drop_last: Leave out what fills no batch.
        scheduler: Of the learning rate, or None.
        scheduler_by: What turns it.
        stop_below: Share by which an epoch's loss must fall, or None.

    Returns:
        What came of it.

    Raises:
        ValueError: The network has batch norm, or a number is out of range.
        FloatingPointError: The loss of an epoch is not finite.
    """
    numbers = epochs, batch_size, max_grad_norm, autocast, steps, stop_below
    check_training(len(indices), len(targets), *numbers)
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise ValueError(
            "student_workers > 1: the student has batch norm, whose statistics would be those of a "
            "share of the batch; take student.norm=group"
        )
    model.to(device).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    step = stepper(optimizer, parameters)
    sizes = [parameter.numel() for parameter in parameters]
    losses, rate, taken = list[float](), rate_of(scheduler, scheduler_by, optimizer), 0
    with seeded_torch(rng):
        for order in passes(len(indices), batch_size, rng, epochs, steps, drop_last):
            total = 0.0
            for batch in order:
                mine = batch[link.rank :: size]
                sums = torch.zeros(sum(sizes) + 1)
                if len(mine):  # a small last batch may have nothing for everybody
                    what = dataset, indices[mine], targets[torch.from_numpy(mine)]
                    cost = _cost(model, *what, loss, device, autocast)
                    sums = _gradient_and_cost(cost, len(batch), parameters)
                *pieces, own = torch.split(link.total(sums).to(device), [*sizes, 1])
                gradients: list[Tensor | None] = [*map(Tensor.view_as, pieces, parameters)]
                if max_grad_norm is not None:
                    gradients = clipped(gradients, max_grad_norm)
                step(gradients, rate(len(losses), taken))
                taken += 1
                total += float(own)
            losses.append(total / sum(map(len, order)))
            if not np.isfinite(losses[-1]):
                raise loss_not_finite(losses[-1], len(losses), epochs if steps is None else None)
            if is_flat(losses, stop_below):
                break
    if not finite(parameters):
        raise parameters_not_finite()
    return Shard(parameters_of(model), losses, rng.bit_generator.state)


def _cost(
    model: nn.Module,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    targets: Tensor,
    loss: Loss,
    device: str,
    autocast: Precision | None,
) -> Tensor:
    """Run a network on some examples; return the sum of their losses."""
    inputs = torch.from_numpy(normalised(dataset, indices)).to(device)
    with half_precision(autocast, torch.device(device)):
        logits = model(inputs)
    return loss(logits.float(), targets.to(device)).sum()


def _gradient_and_cost(cost: Tensor, batch_size: int, parameters: list[nn.Parameter]) -> Tensor:
    """Return, flat on the CPU, the gradient of a share of a batch's mean loss, and its sum."""
    found = torch.autograd.grad(cost / batch_size, parameters, allow_unused=True)
    flat = [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(parameters, found, strict=True)
    ]
    return torch.cat([*(each.reshape(-1) for each in flat), cost.detach()[None]]).cpu()
