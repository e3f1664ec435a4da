"""Evaluation: what a model answers, rows of logits and features, and how good that is."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clients.data import Dataset, normalised
from clients.training.taps import PENULTIMATE, Taps, evaluating, one_tensor

BATCH_SIZE = 256
"""Examples per forward pass."""


def predict(
    model: nn.Module,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    batch_size: int = BATCH_SIZE,
) -> Tensor:
    """Answer every example, in eval mode and without gradients.

    Args:
        model: Network from inputs [B, ...] to outputs [B, *output_shape].
        dataset: Where the inputs are, and the task.
        indices: Which of its examples to answer [N].
        batch_size: Examples per forward pass. Part of the bits: a matrix product's rounding may
            depend on its height.

    Returns:
        Rows of the task [N*S, C], such as logits [N, classes], float32 on the CPU.

    Raises:
        ValueError: There is nothing to answer.
    """
    return predict_and_tap(model, dataset, indices, (), batch_size)[0]


def predict_and_tap(
    model: nn.Module,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    taps: Iterable[str],
    batch_size: int = BATCH_SIZE,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Answer every example, as `predict`, and give the features at some places of the network.

    Args:
        model: As in `predict`.
        dataset: Where the inputs are.
        indices: Which of its examples to answer [N].
        taps: The places, as in `clients.training.taps.Taps`.
        batch_size: As in `predict`.

    Returns:
        Rows [N*S, C] and features [N, ...] by place, float32 on the CPU.

    Raises:
        ValueError: There is nothing to answer, or no such place, or it gives nothing.
    """
    outputs, features = run(model, dataset, indices, taps, batch_size)
    return dataset.task.answers(outputs), features


def run(
    model: nn.Module,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    taps: Iterable[str] = (),
    batch_size: int = BATCH_SIZE,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run a network on every example, as `predict_and_tap`: outputs [N, ...] as they come."""
    if len(indices) == 0:
        raise ValueError("no inputs to answer: expected at least 1")
    device = next(model.parameters()).device
    outputs, seen = [], []
    with torch.inference_mode(), evaluating(model), Taps(model, taps) as places:
        for start in range(0, len(indices), batch_size):
            batch = normalised(dataset, indices[start : start + batch_size])
            outputs.append(one_tensor(model(torch.from_numpy(batch).to(device))).float().cpu())
            seen.append({n: each.float().cpu() for n, each in places.take().items()})
    features = {name: torch.cat([each[name] for each in seen]) for name in places.names}
    return torch.cat(outputs), features


def inputs_of(dataset: Dataset, indices: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Network inputs as `predict` sees them [N, ...]: a view's generator goes on batch by batch."""
    if dataset.view is None or len(indices) <= BATCH_SIZE:
        return normalised(dataset, indices)
    starts = range(0, len(indices), BATCH_SIZE)
    return np.concatenate([normalised(dataset, indices[at : at + BATCH_SIZE]) for at in starts])


def predict_with_features(
    model: nn.Module, dataset: Dataset, indices: npt.NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """Answer every example, and give what the classifier saw of it.

    Args:
        model: As in `predict`, with a `torch.nn.Linear` as its classifier.
        dataset: Where the inputs are.
        indices: Which of its examples to answer [N].

    Returns:
        Rows [N*S, C] and penultimate features [N, D], float32 on the CPU.

    Raises:
        ValueError: There is nothing to answer, or the model calls no linear layer.
    """
    logits, features = predict_and_tap(model, dataset, indices, [PENULTIMATE])
    return logits, features[PENULTIMATE].flatten(1)


def evaluate(model: nn.Module, dataset: Dataset) -> dict[str, float]:
    """Measure a model on a whole labelled set.

    Args:
        model: As in `predict`.
        dataset: Labelled examples.

    Returns:
        What the task measures; of a classification `accuracy` in [0, 1] and `loss`, the mean
        cross-entropy in nats.
    """
    return measured(predict(model, dataset, np.arange(len(dataset))), dataset)


def measured(rows: Tensor, dataset: Dataset) -> dict[str, float]:
    """Measure answers to a whole labelled set.

    Args:
        rows: As `predict` gives them.
        dataset: Labelled examples.

    Returns:
        As of `evaluate`.
    """
    return dataset.task.measures(rows, dataset.labels)
