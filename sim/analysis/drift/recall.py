"""Accuracy by class: what each network knows, and what it has forgotten."""

import torch
from torch import Tensor


def recall(
    predicted: Tensor, labels: Tensor, num_classes: int, answered: Tensor | None = None
) -> Tensor:
    """Share of each class's examples that are taken for it.

    Args:
        predicted: Classes [K, N].
        labels: Classes [N].
        num_classes: C.
        answered: Of which examples there is a prediction [K, N] bool; None = of all.

    Returns:
        [K, C] in [0, 1]; NaN for a class without an example.
    """
    truth = torch.nn.functional.one_hot(labels, num_classes).double()  # [N, C]
    right = predicted == labels
    if answered is None:
        return right.double() @ truth / truth.sum(0)
    return (right & answered).double() @ truth / (answered.double() @ truth)


def forgetting(best: Tensor, now: Tensor) -> Tensor:
    """mean_c max_{r' < r} acc_c(r') - acc_c(r).

    Args:
        best: Largest recall of each class over the rounds before [..., C]; NaN = class not seen.
        now: Recall of this round [..., C].

    Returns:
        [...] in [-1, 1]; below 0 where more was learnt than ever before, NaN without a class.

    Reference:
        Lee et al., "Preservation of the Global Knowledge by Not-True Distillation in Federated
        Learning", 2022, sec. 2.2.
    """
    return (best - now).nanmean(-1)


def lost_recall(before: Tensor, after: Tensor) -> Tensor:
    """mean_c max(0, acc_c(before) - acc_c(after)): what training cost, whatever else it brought.

    Args:
        before: Recall of each class [..., C] before training; NaN = class not seen.
        after: And after it [..., C].

    Returns:
        [...] in [0, 1]; NaN without a class.

    Reference:
        Lee et al. 2022, whose measure is over two rounds and does not stop at 0.
    """
    return (before - after).clamp_min(0).nanmean(-1)
