"""Labels: what is wrong with them for a task, and of which kind an example is, for partitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[Any]
Strata = npt.NDArray[np.int64]

UNLABELLED = -1
"""The label of a site, such as a pixel, that counts in no loss and in no measure."""

BINS = 10
"""Into how many parts of equal size numbers are cut, for partitions by label."""


def not_classes(
    labels: Labels, *, num_classes: int, shape: tuple[int, ...], least: int = 0
) -> str | None:
    """Say why labels are no classes, [N, *shape] in least..C - 1; None if they are."""
    if labels.dtype != np.int64:
        return f"labels has dtype {labels.dtype}, expected int64"
    if labels.shape[1:] != shape:
        return f"labels has shape {labels.shape}, expected [N{''.join(f', {n}' for n in shape)}]"
    if num_classes < 1:
        return f"num_classes={num_classes}, expected at least 1"
    if not labels.size:
        return None
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < least or highest >= num_classes:
        unlabelled = f" (or {UNLABELLED}, not labelled)" if least < 0 else ""
        return (
            f"labels lie in {lowest}..{highest}, expected 0..{num_classes - 1} "
            f"(num_classes={num_classes}){unlabelled}"
        )
    return None


def not_of_heads(labels: Labels, *, heads: Mapping[str, int]) -> str | None:
    """Say why labels are no classes of several heads, [N, heads]; None if they are."""
    if labels.ndim != 2 or labels.shape[1] != len(heads):
        wanted = f"[N, {len(heads)}], a column for each head"
        return f"labels has shape {labels.shape}, expected {wanted}"
    for place, (name, size) in enumerate(heads.items()):
        if reason := not_classes(labels[:, place], num_classes=size, shape=(), least=UNLABELLED):
            return f"head {name}: {reason}"
    return None


def not_numbers(labels: Labels, *, shape: tuple[int, ...]) -> str | None:
    """Say why labels are no numbers, [N, *shape]; None if they are."""
    if labels.dtype != np.float32:
        return f"labels has dtype {labels.dtype}, expected float32"
    if labels.shape[1:] != shape:
        return f"labels has shape {labels.shape}, expected [N{''.join(f', {n}' for n in shape)}]"
    return None if np.isfinite(labels).all() else "labels holds NaN or infinity, expected numbers"


def each_class(labels: Labels) -> Strata:
    """Take a class for the kind of its example."""
    return labels


def most_frequent(labels: Labels, *, num_classes: int) -> Strata:
    """Take the class of most sites, but for class 0 where there is another."""
    flat = labels.reshape(len(labels), -1)
    counts = np.stack([(flat == c).sum(1) for c in range(num_classes)], axis=1)
    foreground = counts[:, 1:]
    there = foreground.any(1) if num_classes > 1 else np.zeros(len(labels), dtype=np.bool_)
    found = np.zeros(len(labels), dtype=np.int64)
    found[there] = foreground[there].argmax(1) + 1
    return found


def first_head(labels: Labels) -> Strata:
    """Take the first head's class; what is not labelled counts as 0."""
    return labels[:, 0].clip(min=0)


def tenths(labels: Labels) -> Strata:
    """Rank the first number: the tenth of the examples among which it is."""
    order = np.argsort(np.argsort(labels[:, 0], kind="stable"), kind="stable")
    return order * BINS // max(1, len(labels))
