"""Personalised accuracy: how good a network is on classes as a client has them."""

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
    with torch.no_grad():
        batches = torch.split(inputs, 256)
        right = torch.cat([network(batch).argmax(1) for batch in batches]) == labels
    counts = np.bincount(labels.cpu().numpy(), minlength=class_shares.shape[-1])
    hits = np.bincount(labels[right].cpu().numpy(), minlength=class_shares.shape[-1])
    there = class_shares * (counts > 0)
    with np.errstate(invalid="ignore"):
        found = there @ (hits / np.maximum(counts, 1)) / there.sum(-1)
    if found.ndim == 0:
        return {} if np.isnan(found) else {"own_accuracy": float(found)}
    known = found[~np.isnan(found)]
    if not len(known):
        return {}
    return {
        "own_accuracy": float(known.mean()),
        "own_accuracy_worst": float(known.min()),
        "own_accuracy_std": float(known.std()),
    }
