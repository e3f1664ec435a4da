"""The task: what is to be predicted, from inputs of what shape, by which loss, measured how.

A network gives `output_shape` numbers of each example. Rules look at *rows* of answers: S sites of
an input, one for a class of an image, H*W for a class of each pixel, with C numbers each. A task of
one's own is a `Task` that a function which reads data gives its data sets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from clients.data.label_checks import (
    BINS,
    UNLABELLED,
    Labels,
    Strata,
    each_class,
    first_head,
    most_frequent,
    not_classes,
    not_numbers,
    not_of_heads,
    tenths,
)
from clients.data.label_losses import (
    classes_last,
    cross_entropy,
    cross_entropy_of_labelled,
    half_squared_error,
    heads_apart,
    loss_of_heads,
    loss_of_sites,
)
from clients.data.measures import class_measures, head_measures, number_measures, pixel_measures

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be predicted. Letters: B examples, S sites of each, C numbers of each site.

    Attributes:
        name: what messages call it.
        input_shape: of one input, such as (channels, height, width) or (tokens,).
        output_shape: of what a network gives of one input; the first axis is that of classes.
        num_classes: C, classes or numbers of a row of answers.
        loss: (outputs [B, *output_shape], labels [B, ...]) -> loss per example [B]. Labels have a
            number for each site, where there are several.
        measures: (rows [B*S, C], labels [B, ...]) -> numbers by name, `loss` among them.
        measure: which of them tables show.
        label_fault: labels [B, ...] -> why they are none of this task, or None.
        strata: labels [B, ...] -> kind of each example [B], >= 0: what partitions go by.
        num_strata: how many kinds there are.
        rows: (outputs) -> rows [B*S, C]; None: outputs are rows, S = 1.
        sites: S.
        num_tokens: inputs are whole numbers below this, such as of words; None: they are images
            or other numbers, which are normalised.
        soft: whether the softmax of a row is what a network believes; else it is numbers.
        alike: whether a class means the same in each row; of several heads it does not.

    Raises:
        ValueError: there are no sites, or inputs or outputs have no axis.
    """

    name: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    num_classes: int
    loss: Callable[[Tensor, Tensor], Tensor]
    measures: Callable[[Tensor, Labels], dict[str, float]]
    label_fault: Callable[[Labels], str | None]
    strata: Callable[[Labels], Strata]
    num_strata: int
    rows: Callable[[Tensor], Tensor] | None = None
    sites: int = 1
    num_tokens: int | None = None
    soft: bool = True
    alike: bool = True
    measure: str = "accuracy"

    def __post_init__(self) -> None:
        for name in ("input_shape", "output_shape"):
            if not (shape := tuple(getattr(self, name))):
                raise ValueError(f"task {self.name}: {name}=(), expected one axis or more")
            object.__setattr__(self, name, shape)
        if not isinstance(self.sites, int) or self.sites < 1:
            raise ValueError(f"task {self.name}: sites={self.sites}, expected an integer >= 1")

    @property
    def one_class_each(self) -> bool:
        """Whether there is one class of each input: a classification, of whatever inputs."""
        return self.soft and self.rows is None

    @property
    def has_classes(self) -> bool:
        """Whether rows are of classes that mean the same in each: what can be counted by class."""
        return self.soft and self.alike

    def answers(self, outputs: Tensor) -> Tensor:
        """Return outputs [B, *output_shape] as rows [B*S, C]."""
        return outputs if self.rows is None else self.rows(outputs)

    def by_input(self, rows: Tensor) -> Tensor:
        """Return rows [B*S, C] as what one input's targets are: [B, C], or [B, S, C]."""
        if self.sites == 1:
            return rows
        import torch

        return torch.unflatten(rows, 0, (-1, self.sites))

    def made_up(self, rng: np.random.Generator, *batch: int) -> Tensor:
        """Make up inputs [*batch, *input_shape] to try networks on, float64 or int64."""
        import torch

        shape = (*batch, *self.input_shape)
        if self.num_tokens is not None:
            return torch.from_numpy(rng.integers(self.num_tokens, size=shape))
        return torch.from_numpy(rng.normal(size=shape))

    def blank(self, size: int) -> Tensor:
        """Return inputs of zeros [size, *input_shape], as networks get them."""
        import torch

        dtype = torch.float32 if self.num_tokens is None else torch.int64
        return torch.zeros(size, *self.input_shape, dtype=dtype)


# --- what is shipped ---


def classification(
    input_shape: tuple[int, ...], num_classes: int, num_tokens: int | None = None
) -> Task:
    """One of C classes for each input, by cross-entropy.

    Args:
        input_shape: of one input.
        num_classes: C, at least 1.
        num_tokens: inputs are whole numbers below this; None: images, or other numbers.

    Returns:
        The task; labels are int64 [N].
    """
    return Task(
        name="classification",
        input_shape=input_shape,
        output_shape=(num_classes,),
        num_classes=num_classes,
        loss=cross_entropy,
        measures=class_measures,
        label_fault=partial(not_classes, num_classes=num_classes, shape=()),
        strata=each_class,
        num_strata=num_classes,
        num_tokens=num_tokens,
    )


def partly_labelled(task: Task) -> Task:
    """Return a classification of which some examples may be `UNLABELLED` (-1), at no loss.

    Of several heads or sites they may be so anyway; a loss of somebody's own is left alone.
    """
    fault: Any = task.label_fault
    if task.loss is not cross_entropy or getattr(fault, "func", None) is not not_classes:
        return task
    least = partial(fault, least=UNLABELLED)
    return replace(task, loss=cross_entropy_of_labelled, label_fault=least)


def dense_labelling(input_shape: tuple[int, ...], num_classes: int) -> Task:
    """One of C classes for each pixel, semantic segmentation: by the mean cross-entropy of pixels.

    Partitions go by the class that most pixels of an image have, but for class 0, the background,
    where there is another.

    Args:
        input_shape: (channels, height, width).
        num_classes: C, at least 1.

    Returns:
        The task; networks give [B, C, H, W], labels are int64 [N, H, W], `UNLABELLED` (-1) where
        nobody knows.
    """
    _, *size = input_shape
    return Task(
        name="dense labelling",
        input_shape=input_shape,
        output_shape=(num_classes, *size),
        num_classes=num_classes,
        loss=loss_of_sites,
        measures=partial(pixel_measures, num_classes=num_classes),
        label_fault=partial(
            not_classes, num_classes=num_classes, shape=tuple(size), least=UNLABELLED
        ),
        strata=partial(most_frequent, num_classes=num_classes),
        num_strata=num_classes,
        rows=classes_last,
        measure="miou",
        sites=math.prod(size),
    )


def several_heads(
    input_shape: tuple[int, ...], heads: Mapping[str, int], num_tokens: int | None = None
) -> Task:
    """One class for each of several questions about an input, by the mean of their cross-entropies.

    Args:
        input_shape: of one input.
        heads: how many classes each question has, by name.
        num_tokens: as in `classification`.

    Returns:
        The task; networks give the logits of all heads in this order, [B, sum of classes]; labels
        are int64 [N, heads], and `UNLABELLED` (-1) where nobody knows. Partitions go by the
        first, in which what is not labelled counts as class 0.

    Raises:
        ValueError: there is no head.
    """
    if not heads:
        raise ValueError("heads={}: expected at least one")
    sizes = tuple(heads.values())
    rows = partial(heads_apart, sizes=sizes)
    return Task(
        name="several heads",
        input_shape=input_shape,
        output_shape=(sum(sizes),),
        num_classes=max(sizes),
        loss=partial(loss_of_heads, rows=rows),
        measures=partial(head_measures, names=tuple(heads)),
        label_fault=partial(not_of_heads, heads=dict(heads)),
        strata=first_head,
        num_strata=sizes[0],
        rows=rows,
        sites=len(sizes),
        alike=len(sizes) == 1,
        num_tokens=num_tokens,
    )


def regression(input_shape: tuple[int, ...], num_outputs: int = 1) -> Task:
    """D numbers for each input, by half the squared error, summed over them.

    There are no probabilities: a method combines numbers (strategy/combiner=mean_of_outputs) and
    the student learns by strategy/loss=mse. Partitions go by tenths of the first number.

    Args:
        input_shape: of one input.
        num_outputs: D, at least 1.

    Returns:
        The task; labels are float32 [N, D].
    """
    return Task(
        name="regression",
        input_shape=input_shape,
        output_shape=(num_outputs,),
        num_classes=num_outputs,
        loss=half_squared_error,
        measures=number_measures,
        label_fault=partial(not_numbers, shape=(num_outputs,)),
        strata=tenths,
        num_strata=BINS,
        soft=False,
        measure="r2",
    )
