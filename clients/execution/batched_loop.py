"""Like clients as one: trained, and asked, in one batched step."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from clients.data import Dataset
from clients.data.batches_to_device import feed
from clients.execution.group_batches import Examples, Indices, Step, View, as_seen, schedule
from clients.execution.stack import Stack
from clients.execution.stacked_gradients import StackedGradients
from clients.training.loop import (
    check_training,
    loss_not_finite,
    parameters_not_finite,
)
from clients.training.objective import Anchors, Loss, Objective, as_objective
from clients.training.optimizer_steps import Optimizer, stepper
from clients.training.schedules import By, Scheduler, rate_of
from clients.training.single_gradients import Precision


def train_together(
    stack: Stack,
    dataset: Dataset,
    indices: Sequence[Indices],
    targets: Sequence[Tensor],
    objective: Loss | Objective,
    rngs: Sequence[np.random.Generator],
    *,
    epochs: int,
    batch_size: int,
    optimizer: Optimizer,
    max_grad_norm: float | None = None,
    autocast: Precision | None = None,
    steps: int | None = None,
    drop_last: bool = False,
    scheduler: Scheduler | None = None,
    scheduler_by: By = "round",
    anchors: Sequence[Anchors] = (),
    views: Sequence[View | None] = (),
) -> list[list[float] | Exception]:
    """Do for each client what `clients.training.loop.train` does, all clients in the same steps.

    Each client sees the examples that it would see alone, in that order, and what it learns does
    not depend on the others but for float32 rounding. A client with fewer steps stands still at the
    end; put those with most examples first, so that the others need not be computed any more.

    Args:
        stack: Holds the clients' networks, the i-th client's at place i; trained in place.
        dataset: Where the inputs are.
        indices: For each of at most G clients, which of the examples it uses [n].
        targets: For each client, what the loss compares with: labels [n] or probs [n, C].
        objective: What is minimised, as in `train`; its parts run under `torch.vmap`, and an
            example's loss depends on that example alone (`clients.execution.objective_policy`).
        rngs: For each client its source of randomness, left as `train` leaves it.
        epochs: Passes of each client over its examples, >= 0.
        batch_size: Examples per client and step, >= 1.
        optimizer: Makes a fresh optimiser, `clients.training.optimizer_steps.elementwise`.
        max_grad_norm: Clip each client's gradient to this total L2 norm, > 0; None = never.
        autocast: As in `train`.
        steps: As there; a client's last epoch may be broken off where another's is not.
        drop_last: As there.
        scheduler: As there.
        scheduler_by: As there, but not "epoch", which clients end after unlike numbers of steps.
        anchors: For each client what the objective compares with, alike in names and shapes; none
            = nothing but what it began with.
        views: What each client does to the inputs of a batch [B, ...]; none = nothing.

    Returns:
        For each client its mean loss per example of each epoch, or the exception that `train` would
        raise: FloatingPointError where it diverged, ValueError where batch norm had a batch of a
        single value per channel. The network of a client with an exception is of no use.

    Raises:
        ValueError: A number is out of range, there are too many clients, one has no example, or
            not what the objective compares with.
    """
    if len(indices) > stack.size:
        raise ValueError(f"{len(indices)} clients for a stack of {stack.size}")
    for own, its_targets in zip(indices, targets, strict=True):
        numbers = epochs, batch_size, max_grad_norm, autocast, steps
        check_training(len(own), len(its_targets), *numbers)
    sizes = [len(own) for own in indices]
    if not sizes:
        return []
    taken = list(schedule(sizes, rngs, batch_size, epochs, steps, drop_last))
    gradients = StackedGradients(stack, len(sizes), as_objective(objective), anchors, autocast)
    training = _Training(gradients, len(sizes), optimizer, max_grad_norm)
    examples = Examples(indices, targets, stack.device)
    change = partial(as_seen, taken, views) if any(views) else None
    rows = (examples.of(step.positions) for step in taken)
    inputs = feed(dataset, rows, stack.device, change)
    rate = rate_of(scheduler, scheduler_by, optimizer)
    with gradients.taps:
        sums = [
            training.step(step.counts, images, *examples.learned(step.positions), rate(0, number))
            for number, (step, images) in enumerate(zip(taken, inputs, strict=True))
        ]
    losses = _losses(taken, sums, len(sizes))
    refused, finite = gradients.refused.tolist(), stack.finite(len(sizes)).tolist()
    return [_outcome(*each) for each in zip(losses, refused, finite, strict=True)]


def _losses(taken: Sequence[Step], sums: Sequence[Tensor], clients: int) -> list[list[float]]:
    """Return each client's mean loss per example of each epoch that it began."""
    epochs = max((int(step.epochs.max()) + 1 for step in taken), default=0)
    totals, seen = np.zeros((clients, epochs)), np.zeros((clients, epochs))
    for step, its_sums in zip(taken, sums, strict=True):
        place = np.arange(len(its_sums)), step.epochs
        totals[place] += its_sums.double().cpu().numpy()
        seen[place] += step.counts
    return [
        (own[there] / of[there]).tolist()
        for own, of, there in zip(totals, seen, seen > 0, strict=True)
    ]


class _Training:
    """Steps of a stack's first networks, of which some may stand still."""

    def __init__(
        self,
        gradients: StackedGradients,
        members: int,
        optimizer: Optimizer,
        max_grad_norm: float | None,
    ) -> None:
        self.gradients = gradients
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self.narrow(members)

    def narrow(self, members: int) -> None:
        """Go on with the first few networks, with a fresh optimiser."""
        self.tensors = self.gradients.stack.first(members)
        self.named = {name: self.tensors[name] for name in self.gradients.trained}
        self.leaves = [*self.named.values()]
        self.update = stepper(self.optimizer, self.leaves)

    def step(
        self, counts: Indices, inputs: Tensor, targets: Tensor, rows: Tensor, rate: float | None
    ) -> Tensor:
        """Take one step of every client that has examples.

        Args:
            counts: Number of examples of each client that still trains, and of those before it [G].
            inputs: [G*B, C, H, W].
            targets: [G, B] or [G, B, C].
            rows: Positions of these among each client's examples [G, B].
            rate: The learning rate of the step; None = the optimiser's own.

        Returns:
            Each client's sum of losses [G].
        """
        members = len(targets)
        if members < len(self.leaves[0]) and _memoryless(self.optimizer):
            self.narrow(members)
        tensors = self.tensors
        if members < len(self.leaves[0]):
            tensors = {name: tensor[:members] for name, tensor in tensors.items()}
        sums, gradients = self.gradients(tensors, self.named, counts, inputs, targets, rows)
        if self.max_grad_norm is not None:
            _clip(gradients, self.max_grad_norm)
        self._update(gradients, counts, rate)
        return sums

    def _update(
        self, gradients: Sequence[Tensor | None], counts: Indices, rate: float | None
    ) -> None:
        """Update those with examples; momentum and weight decay would move the others too."""
        still = np.ones(len(self.leaves[0]), dtype=np.bool_)
        still[: len(counts)] = counts == 0
        places = torch.from_numpy(np.flatnonzero(still)).to(self.leaves[0].device)
        kept = [leaf.detach()[places] for leaf in self.leaves] if len(places) else []
        self.update(gradients, rate)
        for leaf, values in zip(self.leaves, kept, strict=bool(kept)):
            leaf.detach()[places] = values


def _memoryless(optimizer: Optimizer) -> bool:
    """Tell whether an optimiser keeps nothing from step to step."""
    kind = optimizer.func if isinstance(optimizer, partial) else optimizer
    options = optimizer.keywords if isinstance(optimizer, partial) else {}
    return kind is torch.optim.SGD and not options.get("momentum")


def _clip(gradients: Sequence[Tensor | None], max_norm: float) -> None:
    """Do in place for each client what `clients.training.loop.clipped` does."""
    present = [gradient for gradient in gradients if gradient is not None]
    norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in present])
    factors = (max_norm / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    for gradient in present:
        gradient.mul_(factors.view(-1, *[1] * (gradient.dim() - 1)))


def _outcome(losses: list[float], refused: bool, finite: bool) -> list[float] | Exception:
    if refused:
        return ValueError("batch norm had a batch of a single value per channel")
    for epoch, value in enumerate(losses, start=1):
        if not np.isfinite(value):
            return loss_not_finite(value, epoch, len(losses))
    return losses if finite else parameters_not_finite()


def predict_together(
    stack: Stack,
    members: int,
    dataset: Dataset,
    indices: Indices,
    batch_size: int = 256,
) -> Tensor:
    """Let the first few networks answer the same examples, in eval mode and without gradients.

    Args:
        stack: Holds the networks.
        members: How many of them answer, 1..G.
        dataset: Where the inputs are.
        indices: Which of its examples all answer [N].
        batch_size: Examples per forward pass. Part of the bits, as in `predict`.

    Returns:
        Logits [members, N, classes], float32 on the CPU.

    Raises:
        ValueError: There is nothing to answer.
    """
    if len(indices) == 0:
        raise ValueError("no inputs to answer: expected at least 1")
    batches = (indices[i : i + batch_size] for i in range(0, len(indices), batch_size))
    inputs = feed(dataset, batches, stack.device)
    return torch.cat([stack.answer(members, images).float().cpu() for images in inputs], dim=1)
