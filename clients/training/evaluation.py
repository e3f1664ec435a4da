"""What a model answers: logits, penultimate features, accuracy."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clients.data import Dataset, normalised
from clients.training.losses import cross_entropy


def predict(
    model: nn.Module,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    batch_size: int = 256,
) -> Tensor:
    """Answer every example, in eval mode and without gradients.

    Args:
        model: Network from [B, C, H, W] to logits [B, classes].
        dataset: Where the inputs are.
        indices: Which of its examples to answer [N].
        batch_size: Examples per forward pass. Part of the bits: a matrix product's rounding may
            depend on its height.

    Returns:
        Logits [N, classes], float32 on the CPU.

    Raises:
        ValueError: There is nothing to answer.
    """
    if len(indices) == 0:
        raise ValueError("no inputs to answer: expected at least 1")
    device = next(model.parameters()).device
    logits = []
    with torch.inference_mode(), evaluating(model):
        for start in range(0, len(indices), batch_size):
            batch = normalised(dataset, indices[start : start + batch_size])
            logits.append(model(torch.from_numpy(batch).to(device)).float().cpu())
    return torch.cat(logits)


def predict_with_features(
    model: nn.Module, dataset: Dataset, indices: npt.NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """Answer every example, and give what the classifier saw of it.

    Args:
        model: As in `predict`, with a `torch.nn.Linear` as its classifier.
        dataset: Where the inputs are.
        indices: Which of its examples to answer [N].

    Returns:
        Logits [N, classes] and penultimate features [N, D], float32 on the CPU.

    Raises:
        ValueError: There is nothing to answer, or the model calls no linear layer.
    """
    with tapped_penultimate(model) as features:
        logits = predict(model, dataset, indices)
    return logits, torch.cat(features)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode for the block; each of its modules is restored as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def tapped_penultimate(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what the last linear layer to be called receives, at each forward pass in the block.

    Args:
        model: Any module that calls at least one `torch.nn.Linear`, the last of them being its
            classifier; in which order they are registered does not matter.

    Yields:
        A list that gets one tensor [B, D] per forward pass, float32 on the CPU.

    Raises:
        ValueError: A forward pass calls no linear layer.
    """
    latest: list[Tensor] = []
    collected: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        latest[:] = [inputs[0]]

    def collect(module: nn.Module, inputs: object, outputs: object) -> None:
        if not latest:
            raise ValueError(
                f"{type(model).__name__} calls no torch.nn.Linear: expected a linear classifier, "
                "whose input is the penultimate feature"
            )
        collected.append(latest.pop().float().flatten(1).cpu())

    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [linear.register_forward_pre_hook(note) for linear in linears]
    hooks.append(model.register_forward_hook(collect))
    try:
        yield collected
    finally:
        for hook in hooks:
            hook.remove()


def evaluate(model: nn.Module, dataset: Dataset) -> dict[str, float]:
    """Measure a model on a whole labelled set.

    Args:
        model: Network from [B, C, H, W] to logits [B, classes].
        dataset: Labelled examples.

    Returns:
        `accuracy` in [0, 1] and `loss`, the mean cross-entropy in nats.
    """
    return measures(predict(model, dataset, np.arange(len(dataset))), dataset.labels)


def measures(logits: Tensor, labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return `accuracy` in [0, 1] and mean cross-entropy `loss` of logits [N, C] for labels [N]."""
    truth = torch.from_numpy(np.array(labels))
    return {
        "accuracy": float((logits.argmax(-1) == truth).double().mean()),
        "loss": float(cross_entropy(logits, truth).double().mean()),
    }
