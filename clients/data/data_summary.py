"""What a person is told of data: how many examples of which shape, and what their classes are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clients.data.dataset import Dataset, Indices
from clients.data.splits import Splits


def described(splits: Splits) -> str:
    """Say what was read, before it is known whether the rest of a config fits it.

    Args:
        splits: of a federation.

    Returns:
        Such as "digits: 862 private, 575 proxy and 360 test examples; inputs [1, 8, 8], outputs
        [10] (classification)".
    """
    private, proxy, test = splits.private, splits.proxy, splits.test
    task, other = private.task, "" if proxy.name == private.name else f" ({proxy.name})"
    return (
        f"{private.name}: {len(private):,} private, {len(proxy):,} proxy{other} and {len(test):,} "
        f"test examples; inputs {[*task.input_shape]}, outputs {[*task.output_shape]} ({task.name})"
    )


def renumbered(dataset: Dataset) -> str | None:
    """Say which label of the file is which class.

    Args:
        dataset: any.

    Returns:
        A line, or None where they are the same.
    """
    if dataset.label_values is None:
        return None
    last = dataset.task.num_classes - 1
    return f"{dataset.name}: its labels {told(dataset.label_values)} are the classes 0..{last} here"


def without_examples(dataset: Dataset) -> str | None:
    """Say which classes have no example.

    Args:
        dataset: any.

    Returns:
        A line, or None where there is none of them, or not one class of each input.
    """
    labels, task = dataset.labels, dataset.task
    if not task.one_class_each:
        return None
    counts = np.bincount(labels[labels >= 0], minlength=task.num_classes)
    names = dataset.label_values or range(task.num_classes)
    missing = [names[number] for number in np.flatnonzero(counts == 0)]
    if not missing:
        return None
    which = told([str(name) for name in missing])
    return f"{dataset.name}: clients have no example of {which}, of {task.num_classes} classes"


def owners_by_client(dataset: Dataset, parts: Sequence[Indices]) -> list[list[Any]] | None:
    """Name whose examples each client has.

    Args:
        dataset: the private set.
        parts: indices of each of K clients.

    Returns:
        K lists of what the file calls owners; None where it does not say, or an owner's examples
        are several clients'.
    """
    if dataset.owners is None:
        return None
    found = [np.unique(dataset.owners[part]).tolist() for part in parts]
    if sum(map(len, found)) > len({owner for each in found for owner in each}):
        return None
    names = dataset.owner_values or range(int(dataset.owners.max()) + 1)
    return [[names[owner] for owner in each] for each in found]


def natural_clients(
    dataset: Dataset, parts: Sequence[Indices], owners: Sequence[Sequence[Any]]
) -> str:
    """Say whose examples clients have.

    Args:
        dataset: the private set.
        parts: indices of each of K clients.
        owners: as `owners_by_client` gives it.

    Returns:
        A line, with at most nine clients.
    """
    assert dataset.owners is not None, "else there are no owners"
    there = len(np.unique(dataset.owners))
    lines = [f"{k} {' + '.join(map(_plain, each))}" for k, each in enumerate(owners)]
    used = sum(map(len, parts))
    return (
        f"{dataset.name}: {sum(map(len, owners))} of {there} owners have clients, with {used:,} of "
        f"{len(dataset):,} private examples: {told(lines)}"
    )


def _plain(name: str | int) -> str:
    return "".join(each if each.isprintable() else "?" for each in str(name))


def told(values: Sequence[int] | Sequence[str]) -> str:
    """Say which values there are.

    Args:
        values: distinct, numbers in increasing order, at least one.

    Returns:
        Such as "1..10", "0, 5, 7" or "cat, dog", at most nine of them.
    """
    numbers = [value for value in values if not isinstance(value, str)]
    if 1 < len(numbers) == numbers[-1] - numbers[0] + 1:
        return f"{numbers[0]}..{numbers[-1]}"
    shown = [str(value) for value in values]
    return ", ".join(shown if len(shown) < 10 else [*shown[:8], "...", shown[-1]])
