"""Batches of a training: how they are drawn, and counted before that."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt


def batches(
    num_examples: int, batch_size: int, rng: np.random.Generator, drop_last: bool = False
) -> Iterator[npt.NDArray[np.int64]]:
    """Cut a fresh random order of 0..num_examples-1 into batches.

    The last batch may be smaller, but never a single example beside others: BatchNorm cannot
    normalise one, so a remainder of one joins the batch before it.

    Args:
        num_examples: n >= 1.
        batch_size: >= 1.
        rng: Source of the order; one permutation is drawn.
        drop_last: Leave out what fills no batch, where anything fills one.

    Yields:
        Positions [B].
    """
    order = rng.permutation(num_examples)
    number = num_batches(num_examples, batch_size, drop_last)
    starts = [batch_size * place for place in range(number)]
    if drop_last and num_examples > batch_size:
        num_examples = batch_size * number
    for start, stop in zip(starts, [*starts[1:], num_examples], strict=True):
        yield order[start:stop]


def num_batches(num_examples: int, batch_size: int, drop_last: bool = False) -> int:
    """Return into how many batches `batches` cuts n >= 1 examples."""
    number, left = divmod(num_examples, batch_size)
    if drop_last and number:
        return number
    alone = left == 1 and batch_size > 1 and number > 0
    return number + (left > 0 and not alone)


def passes(
    num_examples: int,
    batch_size: int,
    rng: np.random.Generator,
    epochs: int,
    steps: int | None = None,
    drop_last: bool = False,
) -> Iterator[list[npt.NDArray[np.int64]]]:
    """Draw the batches of each epoch of a training, by `batches`.

    Args:
        num_examples: n >= 1.
        batch_size: >= 1.
        rng: Source of the orders; one permutation is drawn for each epoch.
        epochs: How many, >= 0.
        steps: How many batches in all, in the place of epochs; the last epoch may then be broken
            off. None = epochs count.
        drop_last: As in `batches`.

    Yields:
        Of each epoch its batches, positions [B].
    """
    cut = num_examples, batch_size
    left = num_batches(*cut, drop_last) * epochs if steps is None else steps
    while left > 0:
        order = list(batches(*cut, rng, drop_last))[:left]
        left -= len(order)
        yield order


def local_steps(train: Callable[..., Any], num_examples: int) -> int:
    """Return how many steps `train`, with its numbers bound, takes on n >= 1 examples.

    Args:
        train: It; another's trainer need not know.
        num_examples: n.

    Returns:
        Their number.

    Raises:
        ValueError: It does not tell its steps, or epochs and batches.
    """
    numbers = train.keywords if isinstance(train, partial) else {}
    if (steps := numbers.get("steps")) is not None:
        return int(steps)
    if not {"epochs", "batch_size"} <= numbers.keys():
        raise ValueError("clients.training: expected epochs and batch_size, to count local steps")
    cut = num_examples, numbers["batch_size"], numbers.get("drop_last", False)
    return int(numbers["epochs"] * num_batches(*cut))


def examples_learned(train: Callable[..., Any], num_examples: int) -> int | None:
    """Count the examples of all of a trainer's steps on n >= 1; None if it does not tell."""
    numbers: dict[str, Any] = train.keywords if isinstance(train, partial) else {}
    size, drop = numbers.get("batch_size", 1), numbers.get("drop_last", False)
    steps, epochs = (numbers.get(name) for name in ("steps", "epochs"))
    if not isinstance(epochs, int) and steps is None:
        return None
    if steps is None and not drop:
        return int(cast(int, epochs) * num_examples)
    number = num_batches(num_examples, size, drop)
    an_epoch = size * number if drop and num_examples > size else num_examples
    whole, rest = divmod(number * cast(int, epochs) if steps is None else steps, number)
    return int(whole * an_epoch + min(rest * size, an_epoch))
