"""What a model answers: logits, penultimate features, accuracy."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clients.data import Dataset, normalised
from clients.training.losses import cross_entropy
from clients.training.taps import PENULTIMATE, Taps, evaluating


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
    return predict_and_tap(model, dataset, indices, (), batch_size)[0]


def predict_and_tap(
    model: nn.Module,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    taps: Iterable[str],
    batch_size: int = 256,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Answer every example, and give the features at some places of the network.

    Args:
        model: As in `predict`.
        dataset: Where the inputs are.
        indices: Which of its examples to answer [N].
        taps: The places, as in `clients.training.taps.Taps`.
        batch_size: As in `predict`.

    Returns:
        Logits [N, classes] and features [N, ...] by place, float32 on the CPU.

    Raises:
        ValueError: There is nothing to answer, or no such place, or it gives nothing.
    """
    if len(indices) == 0:
        raise ValueError("no inputs to answer: expected at least 1")
    device = next(model.parameters()).device
    logits, seen = [], []
    with torch.inference_mode(), evaluating(model), Taps(model, taps) as places:
        for start in range(0, len(indices), batch_size):
            batch = normalised(dataset, indices[start : start + batch_size])
            logits.append(model(torch.from_numpy(batch).to(device)).float().cpu())
            seen.append({n: each.float().cpu() for n, each in places.take().items()})
    features = {name: torch.cat([each[name] for each in seen]) for name in places.names}
    return torch.cat(logits), features


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
    logits, features = predict_and_tap(model, dataset, indices, [PENULTIMATE])
    return logits, features[PENULTIMATE].flatten(1)


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
