"""What a model answers: logits, penultimate features, accuracy."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clients.data import Dataset, normalised
from clients.losses import cross_entropy


def predict(
    model: nn.Module,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    batch_size: int = 256,
) -> tuple[Tensor, Tensor]:
    """Answer every example, in eval mode and without gradients.

    Args:
        model: Network from [B, C, H, W] to logits [B, classes].
        dataset: Where the inputs are.
        indices: Which of its examples to answer [N].
        batch_size: Examples per forward pass. Part of the bits: a matrix product's rounding may
            depend on its height.

    Returns:
        Logits [N, classes] and penultimate features [N, D], float32 on the CPU.

    Raises:
        ValueError: There is nothing to answer, or the model's last linear layer takes no part.
    """
    if len(indices) == 0:
        raise ValueError("no inputs to answer: expected at least 1")
    device = next(model.parameters()).device
    logits, features = [], []
    with torch.inference_mode(), evaluating(model), tapped_penultimate(model) as tap:
        for start in range(0, len(indices), batch_size):
            batch = normalised(dataset, indices[start : start + batch_size])
            logits.append(model(torch.from_numpy(batch).to(device)).float().cpu())
            if not tap:
                raise ValueError(f"{type(model).__name__} never calls its last torch.nn.Linear")
            features.append(tap.pop().float().flatten(1).cpu())
    return torch.cat(logits), torch.cat(features)


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
    """Collect the input of the model's last linear layer at each forward pass in the block.

    Args:
        model: Any module with at least one `torch.nn.Linear`; the last one registered is taken
            to be its classifier.

    Yields:
        A list that receives one tensor [B, D] per forward pass; take it out with `pop`.

    Raises:
        ValueError: The model has no linear layer.
    """
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linears:
        raise ValueError(
            f"{type(model).__name__} has no torch.nn.Linear: expected a linear classifier as the "
            "last layer, whose input is the penultimate feature"
        )
    caught: list[Tensor] = []
    hook = linears[-1].register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    try:
        yield caught
    finally:
        hook.remove()


def evaluate(model: nn.Module, dataset: Dataset) -> dict[str, float]:
    """Measure a model on a whole labelled set.

    Args:
        model: Network from [B, C, H, W] to logits [B, classes].
        dataset: Labelled examples.

    Returns:
        `accuracy` in [0, 1] and `loss`, the mean cross-entropy in nats.
    """
    logits, _ = predict(model, dataset, np.arange(len(dataset)))
    return measures(logits, dataset.labels)


def measures(logits: Tensor, labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return `accuracy` in [0, 1] and mean cross-entropy `loss` of logits [N, C] for labels [N]."""
    truth = torch.from_numpy(np.array(labels))
    return {
        "accuracy": float((logits.argmax(-1) == truth).double().mean()),
        "loss": float(cross_entropy(logits, truth).double().mean()),
    }
