"""Like clients as one: trained, and asked, in one batched step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clients.data import Dataset, normalised
from clients.optimizers import Optimizer, stepper
from clients.seeding import torch_seed
from clients.stacking import Stack
from clients.training import (
    Loss,
    batches,
    check_training,
    loss_not_finite,
    parameters_not_finite,
)
from clients.wide import Filling

Indices = npt.NDArray[np.int64]


def train_together(
    stack: Stack,
    dataset: Dataset,
    indices: Sequence[Indices],
    targets: Sequence[Tensor],
    loss: Loss,
    rngs: Sequence[np.random.Generator],
    *,
    epochs: int,
    batch_size: int,
    optimizer: Optimizer,
    max_grad_norm: float | None = None,
) -> list[list[float] | Exception]:
    """Do for each client what `clients.training.train` does, all clients in the same steps.

    Each client sees the examples that it would see alone, in that order, and what it learns does
    not depend on the others but for float32 rounding. A client with fewer steps stands still at the
    end; put those with most examples first, so that the others need not be computed any more.

    Args:
        stack: Holds the clients' networks, the i-th client's at place i; trained in place.
        dataset: Where the inputs are.
        indices: For each of at most G clients, which of the examples it uses [n].
        targets: For each client, what the loss compares with: labels [n] or probs [n, C].
        loss: Loss per example; an example's may depend on that example alone.
        rngs: For each client its source of randomness, left as `train` leaves it.
        epochs: Passes of each client over its examples, >= 0.
        batch_size: Examples per client and step, >= 1.
        optimizer: Makes a fresh optimiser, `clients.optimizers.elementwise`.
        max_grad_norm: Clip each client's gradient to this total L2 norm, > 0; None = never.

    Returns:
        For each client its mean loss per example of each epoch, or the exception that `train` would
        raise: FloatingPointError where it diverged, ValueError where batch norm had a batch of a
        single value per channel. The network of a client with an exception is of no use.

    Raises:
        ValueError: A number is out of range, there are too many clients, or one has no example.
    """
    if len(indices) > stack.size:
        raise ValueError(f"{len(indices)} clients for a stack of {stack.size}")
    for own, its_targets in zip(indices, targets, strict=True):
        check_training(len(own), len(its_targets), epochs, batch_size, max_grad_norm)
    sizes = [len(own) for own in indices]
    examples = _Examples(dataset, indices, targets, next(iter(stack.tensors.values())).device)
    refused = np.zeros(len(sizes), dtype=np.bool_)
    totals = np.zeros((len(sizes), epochs))
    update = _updater(stack, len(sizes), optimizer, max_grad_norm)
    steps = list(_schedule(sizes, rngs, epochs, batch_size))
    sums = [_train_step(stack, examples, loss, step, update, refused) for step in steps]
    for step, its_sums in zip(steps, sums, strict=True):
        np.add.at(totals, (np.arange(len(step.counts)), step.epochs), its_sums.double().cpu())
    losses = totals / np.array(sizes)[:, None]
    finite = stack.finite(len(sizes))
    return [
        _outcome(its_losses, bool(refused[i]), bool(finite[i]))
        for i, its_losses in enumerate(losses.tolist())
    ]


@dataclass
class _Step:
    """What every client does in one step.

    Attributes:
        positions: Which of its examples each client sees [G, B]; behind those that count its first
            one again, so that padding brings nothing into a forward pass that is not there already.
        counts: How many count [G].
        epochs: Which epoch each client is in [G].
    """

    positions: Indices
    counts: Indices
    epochs: Indices


def _schedule(
    sizes: Sequence[int], rngs: Sequence[np.random.Generator], epochs: int, batch_size: int
) -> Iterator[_Step]:
    """Draw every client's batches as `train` does; clients that are done are left out at the end."""
    plans: list[list[tuple[int, Indices]]] = []
    for size, rng in zip(sizes, rngs, strict=True):
        torch_seed(rng)  # what `train` gives to torch's generator, from which nothing here draws
        plans.append([(e, b) for e in range(epochs) for b in batches(size, batch_size, rng)])
    for number in range(max(len(plan) for plan in plans)):
        members = 1 + max(i for i, plan in enumerate(plans) if len(plan) > number)
        # The epoch of a client without a step matters as little as the position: it counts nothing.
        current = [p[number] if len(p) > number else (0, p[0][1][:0]) for p in plans[:members]]
        counts = np.array([len(batch) for _, batch in current])
        positions = np.zeros((members, counts.max()), dtype=np.int64)
        for row, (_, batch) in zip(positions, current, strict=True):
            row[: len(batch)] = batch
            row[len(batch) :] = batch[:1] if len(batch) else 0
        yield _Step(positions, counts, np.array([epoch for epoch, _ in current]))


class _Examples:
    """The examples of G clients: whose, and what the loss compares with."""

    def __init__(
        self,
        dataset: Dataset,
        indices: Sequence[Indices],
        targets: Sequence[Tensor],
        device: torch.device,
    ) -> None:
        self.dataset = dataset
        self.indices = nn.utils.rnn.pad_sequence(
            [torch.from_numpy(own) for own in indices], batch_first=True
        ).numpy()
        self.targets = nn.utils.rnn.pad_sequence(list(targets), batch_first=True).to(device)
        self.device = device

    def batch(self, positions: Indices) -> tuple[Tensor, Tensor]:
        """Return inputs [G, B, C, H, W] and targets [G, B] or [G, B, C] of some positions [G, B]."""
        members = np.arange(len(positions))[:, None]
        rows = self.indices[members, positions]
        inputs = inputs_of(self.dataset, rows.ravel(), self.device).unflatten(0, rows.shape)
        where = (torch.from_numpy(each).to(self.device) for each in (members, positions))
        return inputs, self.targets[tuple(where)]


def inputs_of(dataset: Dataset, indices: Indices, device: torch.device) -> Tensor:
    """Put the network inputs of some examples [B] on a device: [B, C, H, W], float32."""
    return torch.from_numpy(normalised(dataset, indices)).to(device)


Update = Callable[[dict[str, Tensor], Sequence[Tensor | None], npt.NDArray[np.bool_]], None]


def _updater(
    stack: Stack, members: int, optimizer: Optimizer, max_grad_norm: float | None
) -> Callable[[Sequence[Tensor | None], npt.NDArray[np.bool_]], None]:
    """Prepare steps of the first few networks, in which some clients may stand still."""
    tensors = stack.first(members)
    leaves = [tensors[name] for name in stack.trainable]
    step = stepper(optimizer, leaves)

    def update(gradients: Sequence[Tensor | None], idle: Indices) -> None:
        if max_grad_norm is not None:
            gradients = _clipped(gradients, max_grad_norm)
        if len(idle) == 0:
            step(gradients)
            return
        still = torch.from_numpy(idle).to(leaves[0].device)
        kept = [leaf.detach()[still] for leaf in leaves]
        step([None if g is None else _padded(g, members) for g in gradients])
        for leaf, values in zip(leaves, kept, strict=True):
            leaf.detach()[still] = values

    return update


def _padded(gradient: Tensor, members: int) -> Tensor:
    whole = gradient.new_zeros((members, *gradient.shape[1:]))
    whole[: len(gradient)] = gradient
    return whole


def _train_step(
    stack: Stack,
    examples: _Examples,
    loss: Loss,
    step: _Step,
    update: Callable[[Sequence[Tensor | None], npt.NDArray[np.bool_]], None],
    refused: npt.NDArray[np.bool_],
) -> Tensor:
    """Take one step of all clients; return each one's sum of losses [G]."""
    members, rows = step.positions.shape
    inputs, targets = examples.batch(step.positions)
    mask = None
    if step.counts.min() < rows:
        mask = torch.from_numpy(np.arange(rows) < step.counts[:, None]).to(examples.device)
    tensors = stack.first(members)
    filling = Filling(step.counts, mask, refused[:members])
    logits = stack.forward(tensors, inputs, filling)
    values = loss(logits.flatten(0, 1), targets.flatten(0, 1)).unflatten(0, (members, rows))
    if mask is not None:
        values = values * mask
    sums = values.sum(1)
    counts = torch.from_numpy(step.counts.clip(min=1)).to(sums)
    leaves = [tensors[name] for name in stack.trainable]
    gradients = torch.autograd.grad((sums / counts).sum(), leaves, allow_unused=True)
    active = np.zeros(len(refused), dtype=np.bool_)
    active[:members] = step.counts > 0
    update(gradients, np.flatnonzero(~active))
    return sums.detach()


def _clipped(gradients: Sequence[Tensor | None], max_norm: float) -> list[Tensor | None]:
    """Do for each client what `clients.training.clipped` does."""
    present = [gradient for gradient in gradients if gradient is not None]
    norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in present])
    factors = (max_norm / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    for gradient in present:
        gradient.mul_(factors.view(-1, *[1] * (gradient.dim() - 1)))
    return list(gradients)


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
    device = next(iter(stack.tensors.values())).device
    logits = []
    for start in range(0, len(indices), batch_size):
        inputs = inputs_of(dataset, indices[start : start + batch_size], device)
        logits.append(stack.answer(members, inputs).float().cpu())
    return torch.cat(logits, dim=1)
