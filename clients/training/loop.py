"""The one training loop. Clients (labels) and the student (soft labels) both run it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clients.data import Dataset
from clients.data.loader import feed
from clients.seeding import seeded_torch
from clients.training.optimizers import Optimizer, stepper

Precision = Literal["bfloat16"]

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits [B, C], targets [B] or [B, C]) -> loss per example [B]."""


def batches(
    num_examples: int, batch_size: int, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.int64]]:
    """Cut a fresh random order of 0..num_examples-1 into batches.

    The last batch may be smaller, but never a single example beside others: BatchNorm cannot
    normalise one, so a remainder of one joins the batch before it.

    Args:
        num_examples: n >= 1.
        batch_size: >= 1.
        rng: Source of the order; one permutation is drawn.

    Yields:
        Positions [B].
    """
    order = rng.permutation(num_examples)
    starts = list(range(0, num_examples, batch_size))
    if batch_size > 1 and len(starts) > 1 and num_examples - starts[-1] == 1:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], num_examples], strict=True):
        yield order[start:stop]


def train(
    model: nn.Module,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    targets: Tensor,
    loss: Loss,
    rng: np.random.Generator,
    *,
    epochs: int,
    batch_size: int,
    optimizer: Optimizer,
    max_grad_norm: float | None = None,
    autocast: Precision | None = None,
    proximal_mu: float = 0.0,
) -> list[float]:
    """Train `model` in place by mini-batch descent on the mean of `loss`.

    With `proximal_mu` the objective is that mean + mu/2 ||w - w0||^2 over the parameters to be
    trained, w0 being what they were at the start: FedProx, Li et al., MLSys 2020
    (arXiv:1812.06127), eq. 2. Its gradient mu (w - w0) is added to that of the loss, before both
    are clipped and before an optimiser adds its weight decay; a parameter that a step's loss does
    not reach is not pulled in that step either.

    Args:
        model: Network from [B, C, H, W] to logits [B, classes]; left in train mode.
        dataset: Where the inputs are.
        indices: Which of its examples to use [n].
        targets: What the loss compares with, row i for `indices[i]`: labels [n] or probs [n, C].
        loss: Loss per example.
        rng: Source of all randomness: the order of examples and torch's global generator.
        epochs: Passes over the examples, >= 0.
        batch_size: Examples per step, >= 1.
        optimizer: Makes a fresh optimiser from the parameters, e.g. a partial of torch.optim.SGD.
        max_grad_norm: Clip the gradient's total L2 norm to this, > 0; None = never.
        autocast: Let torch compute what bears it in this half precision; None = float32. Float16
            is not offered: without loss scaling its gradients underflow.
        proximal_mu: mu >= 0; 0 = no such term, and the same bits as without it.

    Returns:
        Mean loss per example of each epoch, without the proximal term.

    Raises:
        ValueError: A number is out of range, or there is no example, or no parameter to train.
        FloatingPointError: The loss of an epoch, or a parameter at the end, is not finite.
    """
    check_training(len(indices), len(targets), epochs, batch_size, max_grad_norm, autocast)
    check_proximal(proximal_mu)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if epochs and not parameters:
        raise ValueError("no parameter requires a gradient: expected at least one to train")
    step = stepper(optimizer, parameters)
    device = parameters[0].device if parameters else torch.device("cpu")
    targets = targets.to(device)
    anchors = [parameter.detach().clone() for parameter in parameters] if proximal_mu else []
    model.train()
    losses = []
    with seeded_torch(rng):
        for epoch in range(epochs):
            total = torch.zeros((), dtype=torch.float64, device=device)
            order = list(batches(len(indices), batch_size, rng))
            inputs = feed(dataset, (indices[batch] for batch in order), device)
            for batch, images in zip(order, inputs, strict=True):
                with half_precision(autocast, device):
                    logits = model(images)
                logits = logits if autocast is None else logits.float()
                values = loss(logits, targets[torch.from_numpy(batch).to(device)])
                # Not .backward(): what it leaves in .grad costs a fill and an add per parameter.
                gradients: Sequence[Tensor | None] = torch.autograd.grad(
                    values.mean(), parameters, allow_unused=True
                )
                if proximal_mu:
                    gradients = pulled(gradients, parameters, anchors, proximal_mu)
                step(gradients if max_grad_norm is None else clipped(gradients, max_grad_norm))
                total += values.detach().sum()
            losses.append(float(total) / len(indices))
            if not np.isfinite(losses[-1]):
                raise loss_not_finite(losses[-1], epoch + 1, epochs)
    if not finite(parameters):
        raise parameters_not_finite()
    return losses


def half_precision(
    autocast: Precision | None, device: torch.device
) -> AbstractContextManager[object]:
    """Return the context of a forward pass in half precision, or one that does nothing."""
    if autocast is None:
        return nullcontext()
    # Nothing is cached: parameters change from step to step, and vmap wraps them anew.
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


def loss_not_finite(loss: float, epoch: int, epochs: int) -> FloatingPointError:
    """Say that training diverged in an epoch (from 1), and what to do about it."""
    return FloatingPointError(
        f"loss is {loss} in epoch {epoch} of {epochs}: lower lr or set max_grad_norm"
    )


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


def pulled(
    gradients: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
    anchors: Sequence[Tensor],
    proximal_mu: float,
) -> tuple[Tensor | None, ...]:
    """Add the gradient of a proximal term, mu (w - w0).

    Args:
        gradients: One per parameter, or None: what the loss does not reach stays where it began.
        parameters: w.
        anchors: w0, what they began with.
        proximal_mu: mu.

    Returns:
        New tensors: an optimiser may keep what it was given as its momentum.
    """
    chosen = [i for i, gradient in enumerate(gradients) if gradient is not None]
    with torch.no_grad():
        moved = torch._foreach_sub([parameters[i] for i in chosen], [anchors[i] for i in chosen])
        present = [gradient for gradient in gradients if gradient is not None]
        sums = dict(zip(chosen, torch._foreach_add(present, moved, alpha=proximal_mu), strict=True))
    return tuple(sums.get(i) for i in range(len(gradients)))


def check_proximal(proximal_mu: float) -> None:
    """Refuse a proximal term that would push away, or is none; ValueError names it."""
    if not 0 <= proximal_mu < float("inf"):
        raise ValueError(f"proximal_mu={proximal_mu}: expected >= 0 and finite")


def check_training(
    num_examples: int,
    num_targets: int,
    epochs: int,
    batch_size: int,
    max_grad_norm: float | None,
    autocast: str | None,
) -> None:
    """Refuse what `train` cannot do; arguments as there, ValueError names the first bad one."""
    if num_examples == 0:
        raise ValueError("no examples to train on: expected at least 1")
    if num_targets != num_examples:
        raise ValueError(f"{num_targets} targets for {num_examples} examples")
    if epochs < 0:
        raise ValueError(f"epochs={epochs}: expected >= 0")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: expected >= 1")
    if max_grad_norm is not None and not max_grad_norm > 0:
        raise ValueError(f"max_grad_norm={max_grad_norm}: expected > 0 or None")
    if autocast not in (None, *get_args(Precision)):
        raise ValueError(f"autocast={autocast}: expected one of {get_args(Precision)} or None")


Trainer = Callable[..., list[float]]
"""`train` with its keyword arguments bound, as `conf/` does with `_partial_: true`."""


def local_epochs(train: Trainer) -> int | None:
    """Return how many local epochs a trainer is bound to; None if it does not tell."""
    epochs = train.keywords.get("epochs") if isinstance(train, partial) else None
    return epochs if isinstance(epochs, int) else None
