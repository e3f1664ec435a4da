"""A user's own arrays as data sets: which of their labels is which class, what is held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clients.data.data_summary import told
from clients.data.dataset import Dataset, Inputs, LabelValues, channel_moments
from clients.data.label_checks import Labels
from clients.data.splits import hold_out
from clients.data.task import Task


def numbered(
    found: Mapping[str, npt.NDArray[Any]], num_classes: int | None = None
) -> tuple[list[npt.NDArray[np.int64]], LabelValues | None, int]:
    """Number the classes that labels name, in the order of their values.

    Args:
        found: labels of the train set [N], and of the test set if it is given, by what they are
            called; integers or texts.
        num_classes: C, of integers that are classes already; None: a class is a value that there
            is.

    Returns:
        Classes [N] of each, int64; the value of each class, or None where it is its number; C.

    Raises:
        ValueError: no labels, one of the test set alone, or none that goes with `num_classes`.
    """
    if empty := [name for name, labels in found.items() if not len(labels)]:
        raise ValueError(f"{empty[0]}: no examples, expected at least 1")
    if num_classes is not None:
        for name, labels in found.items():
            if labels.dtype.kind == "U":
                raise ValueError(f"{name} are texts, which no num_classes={num_classes} goes with")
            if (most := int(labels.max())) >= num_classes:
                raise ValueError(
                    f"{name} go up to {most}, expected below num_classes={num_classes}"
                )
        return [labels.astype(np.int64) for labels in found.values()], None, num_classes
    # Python's integers: numpy turns uint64 beside int64 into floats, and wraps it as int64.
    parts = [np.unique(labels, return_inverse=True) for labels in found.values()]
    values = [distinct.tolist() for distinct, _ in parts]
    class_of = {value: number for number, value in enumerate(values[0])}
    if strange := sorted({*values[-1]} - class_of.keys()):
        names = [*found]
        more = "; if they do, say how many there are with num_classes="
        raise ValueError(
            f"{names[-1]} has {told(strange)}, which {names[0]} ({told(values[0])}) has not: "
            f"expected both to name classes alike{more * isinstance(strange[0], int)}"
        )
    classes = [
        np.array([class_of[value] for value in own], dtype=np.int64)[places]
        for own, (_, places) in zip(values, parts, strict=True)
    ]
    as_they_are = values[0] == [*range(len(class_of))]
    return classes, None if as_they_are else tuple(values[0]), len(class_of)


def own_sets(
    name: str,
    inputs: Mapping[str, Inputs],
    labels: Sequence[Labels],
    task: Task,
    test_share: float,
    seed: int,
    label_values: LabelValues | None = None,
    columns: Sequence[str] | None = None,
    owners: Sequence[npt.NDArray[Any] | None] = (),
) -> tuple[Dataset, Dataset]:
    """Make data sets of a user's arrays: of one a share is held out, of two one is the test set.

    Args:
        name: of both sets.
        inputs: of the train set [N, ...], and of the test set if it is given, by what they are
            called; bytes, which are divided by 255, or float32.
        labels: of each, as the task has them.
        task: what is to be predicted.
        test_share: share of the examples held out, in (0, 1); unused if there is a test set.
        seed: of the shuffle that cuts test from train; unused likewise.
        label_values: [C], what the file calls the classes; None: 0..C - 1.
        columns: what messages call the channels; None: channel 0, ...
        owners: whose each example of each set is [N], texts or integers; None, or nothing of
            either: nobody says.

    Returns:
        Train and test set, normalised by the mean and deviation of the train set.

    Raises:
        ValueError: the two differ in shape or dtype, a channel is constant, or a set is empty.
    """
    (first, whole), *given = inputs.items()
    scale = 1 / 255 if whole.dtype == np.uint8 else 1.0
    whose, names = _numbered_owners(owners)
    if not given:
        rng = np.random.default_rng(seed)
        about = task, scale, test_share, rng, label_values, columns, whose[0], names
        return hold_out(name, whole, labels[0], *about)
    ((second, held_out),) = given
    if (whole.dtype, whole.shape[1:]) != (held_out.dtype, held_out.shape[1:]):
        raise ValueError(
            f"expected {second} as {whole.dtype} {list(whole.shape[1:])} like {first}, "
            f"found {held_out.dtype} {list(held_out.shape[1:])}"
        )
    constants = task, scale, *channel_moments(name, whole, scale, columns), label_values
    train, test = (
        Dataset(name, each, own, *constants, None, *((who, names) if who is not None else ()))
        for each, own, who in zip((whole, held_out), labels, whose, strict=True)
    )
    return train, test


def _numbered_owners(
    owners: Sequence[npt.NDArray[Any] | None],
) -> tuple[list[npt.NDArray[np.int64] | None], LabelValues | None]:
    """Number the owners of the train set and then those that only the test set has."""
    first, second = [each if each is None else each.tolist() for each in [*owners, None, None][:2]]
    if first is None:
        return [None, None], None
    values = sorted({*first})
    values += sorted({*(second or ())} - {*values})
    if second and not {*first} & {*second}:
        raise ValueError(
            f"owners of the test set ({told(sorted({*second}))}) have no example in the train set "
            f"({told(sorted({*first}))}): expected both to name them alike"
        )
    number = {value: place for place, value in enumerate(values)}
    numbers = [
        None if each is None else np.array([number[value] for value in each], dtype=np.int64)
        for each in (first, second)
    ]
    return numbers, tuple(values)
