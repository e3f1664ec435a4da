"""Measures of answers against labels: accuracy, loss, mean IoU, squared error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clients.data.label_checks import UNLABELLED, Labels
from clients.data.label_losses import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


def class_measures(logits: Tensor, labels: Labels) -> dict[str, float]:
    """Return `accuracy` in [0, 1] and mean cross-entropy `loss` of logits [N, C] for labels [N]."""
    import torch

    truth = torch.from_numpy(np.array(labels))
    return {
        "accuracy": float((logits.argmax(-1) == truth).double().mean()),
        "loss": float(cross_entropy(logits, truth).double().mean()),
    }


def pixel_measures(rows: Tensor, labels: Labels, *, num_classes: int) -> dict[str, float]:
    """Return pixel `accuracy`, `loss`, and `miou`.

    The last is the mean over classes, of those that truth or prediction have, of the pixels in both
    over the pixels in either, in [0, 1]: Everingham et al., "The PASCAL VOC Challenge", 2015, 4.
    """
    truth = labels.reshape(-1)
    if not (known := truth != UNLABELLED).any():
        return {}
    rows, truth = rows[known], truth[known]
    cells = truth * num_classes + rows.argmax(-1).numpy()
    table = np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)
    both, either = table.diagonal(), table.sum(0) + table.sum(1) - table.diagonal()
    there = either > 0
    return {**class_measures(rows, truth), "miou": float((both[there] / either[there]).mean())}


def head_measures(rows: Tensor, labels: Labels, *, names: tuple[str, ...]) -> dict[str, float]:
    """Return `loss` and `accuracy` over all heads alike, and `accuracy_NAME` of each."""
    found: dict[str, float] = {}
    all_of = []
    for head, name in enumerate(names):
        known = labels[:, head] != UNLABELLED
        if known.any():
            own = class_measures(rows[head :: len(names)][known], labels[known, head])
            found[f"accuracy_{name}"] = own["accuracy"]
            all_of.append(own)
    means = {key: float(np.mean([own[key] for own in all_of])) for key in ("accuracy", "loss")}
    return {**means, **found} if all_of else {}


def number_measures(outputs: Tensor, labels: Labels) -> dict[str, float]:
    """Return `loss`, root mean squared error `rmse`, and `r2`: 1 less error over variance.

    All three are over all D numbers; `r2` is the mean of the D, of those that vary, 0 if none
    does.
    """
    import torch

    truth = torch.from_numpy(np.array(labels)).double()
    squares = (outputs.double() - truth).square()
    found = {"loss": float(0.5 * squares.sum(1).mean()), "rmse": float(squares.mean().sqrt())}
    variance = truth.var(0, unbiased=False) if len(truth) else truth.new_zeros(truth.shape[1])
    there = variance > 0
    better = 1 - squares.mean(0)[there] / variance[there]
    return {**found, "r2": float(better.mean()) if len(better) else 0.0}
