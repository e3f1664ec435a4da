"""Personalised accuracy: how good a network is on what a client has, classes or test examples."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn


def own_accuracy(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    class_shares: npt.NDArray[np.float64],
) -> dict[str, Any]:
    """Measure personalised accuracy: recall of each class, weighed by a client's shares of them.

    It is what a test set of the client's own class proportions has on average, without the noise
    of drawing one. A function for an `Ask`.

    Args:
        network: From inputs to logits [N, C].
        inputs: Of the test set [N, ...]; all of it, or rare classes are not there.
        labels: [N].
        class_shares: Of a client [C]; of several, whom one network serves, [K, C].

    Returns:
        `own_accuracy` in [0, 1]; of several its mean, `own_accuracy_worst` and `own_accuracy_std`,
        over clients. Classes without an example are left out, and clients who have no others.
    """
    right = _right(network, inputs, labels)
    counts = np.bincount(labels.cpu().numpy(), minlength=class_shares.shape[-1])
    hits = np.bincount(labels[right].cpu().numpy(), minlength=class_shares.shape[-1])
    there = class_shares * (counts > 0)
    with np.errstate(invalid="ignore"):
        found = there @ (hits / np.maximum(counts, 1)) / there.sum(-1)
    return _over_clients("own_accuracy", found)


def own_examples_accuracy(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    own_examples: npt.NDArray[np.bool_],
) -> dict[str, Any]:
    """Measure personalised accuracy on test examples of a client's owners, as of its hospital.

    A function for an `Ask`, where data say whose each example is, as with `partition=natural`.

    Args:
        network: From inputs to logits [N, C].
        inputs: Of the test set [N, ...]; all of it, or few have examples of their own.
        labels: [N].
        own_examples: Which are a client's [N]; of several, whom one network serves, [K, N].

    Returns:
        `own_examples_accuracy` in [0, 1]; of several its mean, `own_examples_accuracy_worst` and
        `own_examples_accuracy_std`, over clients. Who has no test example is left out.

    Raises:
        ValueError: Labels are numbers to be predicted, or several of an input.
    """
    if labels.ndim > 1 or labels.is_floating_point():
        raise ValueError("own_examples_accuracy: labels are no single classes")
    right = _right(network, inputs, labels).cpu().numpy()
    with np.errstate(invalid="ignore"):
        found = (own_examples & right).sum(-1) / own_examples.sum(-1)
    return _over_clients("own_examples_accuracy", found)


def _right(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        batches = torch.split(inputs, 256)
        return torch.cat([network(batch).argmax(1) for batch in batches]) == labels


def _over_clients(name: str, found: Any) -> dict[str, Any]:
    """Name one client's accuracy, or mean, worst and spread of several; NaN where there is none."""
    if found.ndim == 0:
        return {} if np.isnan(found) else {name: float(found)}
    known = found[~np.isnan(found)]
    if not len(known):
        return {}
    return {
        name: float(known.mean()),
        f"{name}_worst": float(known.min()),
        f"{name}_std": float(known.std()),
    }
