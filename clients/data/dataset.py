"""Labelled inputs in their stored dtype, and the one way they become network inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clients.data.label_checks import Labels
from clients.data.task import Task, classification

Inputs = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
LabelValues = tuple[int, ...] | tuple[str, ...]
"""[C], what a file calls the classes."""

# Anything else would be stored larger than it needs to be (float64) or has no agreed scale (int32).
STORED_DTYPES = (np.dtype(np.uint8), np.dtype(np.float32))


@dataclass(frozen=True, eq=False)  # eq=False: arrays have no truth value, so == could only raise
class Dataset:
    """A set of labelled inputs, kept as small as it lies on disk.

    Pixels become network inputs only batch by batch, in `normalised`, so that a data set of uint8
    takes a quarter of the memory it would take as float32. The axis behind that of examples is that
    of channels: of colours, or of the columns of a table.

    Attributes:
        name: what messages call it.
        inputs: [N, *task.input_shape], uint8 or float32; whole numbers where the task has tokens;
            read-only, as what Ray hands to its workers is.
        labels: [N, ...], as the task has them; of a classification int64 [N]; read-only.
        task: what is to be predicted.
        scale: inputs are multiplied by it first: 1/255 for uint8 images, 1/16 for digits, 1 for
            floats.
        mean: per channel, after scaling; none where the task has tokens.
        std: per channel, after scaling, positive; none where the task has tokens.
        label_values: [C], what its file calls the classes; None: 0..C - 1.
        view: what is done to network inputs [B, ...] before anybody gets them; None: nothing.
        owners: [N], int64, whose each example is, 0..W - 1: a writer's, a hospital's; None: nobody
            says.
        owner_values: [W], what its file calls them; None: 0..W - 1.
    """

    name: str
    inputs: Inputs
    labels: Labels
    task: Task
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    label_values: LabelValues | None = None
    view: Callable[[Inputs], Inputs] | None = None
    owners: Indices | None = None
    owner_values: LabelValues | None = None

    def __post_init__(self) -> None:
        for name in ("inputs", "labels", "owners"):  # who changed them changed them for everybody
            if (array := getattr(self, name)) is not None:
                array = array.view()
                array.flags.writeable = False
                object.__setattr__(self, name, array)
        if not isinstance(self.task, Task):
            raise ValueError(
                f"{self.name}: task={self.task!r}, expected a clients.data.Task, such as "
                "classification(input_shape, num_classes)"
            )
        _check_inputs(self)
        if len(self.labels) != len(self.inputs):
            raise ValueError(
                f"{self.name}: labels has shape {self.labels.shape}, expected "
                f"{(len(self.inputs), *self.labels.shape[1:])}: one label for each input"
            )
        if reason := self.task.label_fault(self.labels):
            raise ValueError(f"{self.name}: {reason}")
        if self.owners is not None:
            _check_owners(self)
        if self.task.num_tokens is None:
            _check_constants(self)

    def __len__(self) -> int:
        return len(self.labels)


def subset(dataset: Dataset, indices: Indices) -> Dataset:
    """Copy some examples into a data set of their own.

    Args:
        dataset: where they are taken from.
        indices: [M], in 0..N - 1; the order is kept, an index may occur twice.

    Returns:
        M examples with the same name, classes and constants; shares no memory with `dataset`.
    """
    inputs, labels = dataset.inputs.take(indices, axis=0), dataset.labels.take(indices, axis=0)
    owners = None if dataset.owners is None else dataset.owners.take(indices)
    return replace(dataset, inputs=inputs, labels=labels, owners=owners)


def viewed(dataset: Dataset, view: Callable[[Inputs], Inputs]) -> Dataset:
    """Return a data set of which other inputs are seen.

    Args:
        dataset: not changed; what is returned shares its memory.
        view: network inputs [B, *input_shape] -> inputs of that shape and dtype, C-contiguous.

    Returns:
        It, to be looked at by `normalised`.
    """
    other = copy(dataset)  # not replace(), which looks at all inputs again
    object.__setattr__(other, "view", view)
    return other


def normalised(dataset: Dataset, indices: Indices) -> npt.NDArray[Any]:
    """Network inputs of some examples: (inputs * scale - mean) / std per channel, or tokens.

    Computed as inputs * (scale / std) - mean / std: the same numbers up to float32 rounding, for
    one pass over the batch less.

    Args:
        dataset: where the examples are taken from.
        indices: [B], in 0..N - 1.

    Returns:
        [B, *input_shape], float32, or int64 where the task has tokens; freshly allocated, writable
        and C-contiguous; as the data set's view has them.
    """
    inputs = _network_inputs(dataset, indices)
    if dataset.view is not None:
        inputs = dataset.view(inputs)
    # For one channel "channels first" and "channels last" are the same memory, and torch goes by
    # the stride: with 1 it stays channels last after the first convolution, and a local step of
    # the convolutional networks takes 1.14 to 1.36 times less on grey images.
    if inputs.ndim == 4 and inputs.shape[1] == 1 and inputs.dtype == np.float32:
        batch, _, height, width = inputs.shape
        return inputs.reshape(batch, height, width, 1).transpose(0, 3, 1, 2)
    return inputs


def _network_inputs(dataset: Dataset, indices: Indices) -> npt.NDArray[Any]:
    taken = dataset.inputs.take(indices, axis=0)
    if dataset.task.num_tokens is not None:
        return taken.astype(np.int64)
    std, channels = np.asarray(dataset.std), (-1, *(1 for _ in taken.shape[2:]))
    gain = np.asarray(dataset.scale / std, dtype=np.float32).reshape(channels)
    shift = np.asarray(np.asarray(dataset.mean) / std, dtype=np.float32).reshape(channels)
    # take() always copies, also from float32 images, so working in place never reaches the store.
    inputs: npt.NDArray[np.float32] = taken.astype(np.float32, order="C", copy=False)
    inputs *= gain
    inputs -= shift
    return inputs


def channel_moments(
    name: str, inputs: Inputs, scale: float, columns: Sequence[str] | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel after scaling, to build a `Dataset` with.

    Args:
        name: what the message calls it.
        inputs: [N, C, ...], N at least 1.
        scale: they are multiplied by it first.
        columns: [C], what the message calls the channels; None: by their number.

    Returns:
        Means [C] and standard deviations [C].

    Raises:
        ValueError: a channel is constant, or as good as: rounded to float32, which has 24 bits,
            its inputs would be off by a sixteenth of their deviation or more.
    """
    # Channel by channel: the float64 temporary of std() is then 1/C as large.
    channels = range(inputs.shape[1])
    means = tuple(float(inputs[:, c].mean(dtype=np.float64)) * scale for c in channels)
    stds = tuple(float(inputs[:, c].std(dtype=np.float64)) * scale for c in channels)
    least = float(np.finfo(np.float32).tiny)
    for channel, (mean, std) in enumerate(zip(means, stds, strict=True)):
        if std <= max(abs(mean) * 2**-20, least):
            which = f"column {columns[channel]!r}" if columns else f"channel {channel} of inputs"
            raise ValueError(
                f"{name}: {which} is constant (mean {mean:g}, deviation "
                f"{std:g}), expected values that differ: leave it out, or shift and scale it"
            )
    return means, stds


def _check_owners(dataset: Dataset) -> None:
    name, owners, values = dataset.name, dataset.owners, dataset.owner_values
    assert owners is not None, "else there is nothing to check"
    if owners.shape != (len(dataset.inputs),):
        raise ValueError(
            f"{name}: owners has shape {owners.shape}, expected {(len(dataset.inputs),)}: one for "
            "each input"
        )
    if owners.dtype.kind not in "iu" or (len(owners) and owners.min() < 0):
        raise ValueError(f"{name}: owners are {owners.dtype}, expected whole numbers from 0 on")
    if values is None:
        return
    if not isinstance(values, tuple) or not all(isinstance(each, str | int) for each in values):
        raise ValueError(f"{name}: owner_values is no tuple of texts or of Python's integers")
    if len(owners) and owners.max() >= len(values):
        raise ValueError(
            f"{name}: owners go up to {owners.max()}, expected below {len(values)}, the number of "
            "owner_values"
        )


def _check_inputs(dataset: Dataset) -> None:
    inputs, task, name = dataset.inputs, dataset.task, dataset.name
    if inputs.shape[1:] != task.input_shape:
        wanted = ", ".join(["N", *map(str, task.input_shape)])
        raise ValueError(f"{name}: inputs has shape {inputs.shape}, expected [{wanted}]")
    if task.num_tokens is not None:
        if inputs.dtype.kind not in "iu":
            raise ValueError(f"{name}: inputs has dtype {inputs.dtype}, expected whole numbers")
        if inputs.size and not 0 <= inputs.min() <= inputs.max() < task.num_tokens:
            raise ValueError(
                f"{name}: tokens lie in {inputs.min()}..{inputs.max()}, expected "
                f"0..{task.num_tokens - 1} (num_tokens={task.num_tokens})"
            )
        return
    if inputs.dtype not in STORED_DTYPES:
        raise ValueError(f"{name}: inputs has dtype {inputs.dtype}, expected uint8 or float32")
    if inputs.dtype == np.float32 and not np.isfinite(inputs).all():
        raise ValueError(f"{name}: inputs holds NaN or infinity, expected finite values")


def _check_constants(dataset: Dataset) -> None:
    name, channels = dataset.name, dataset.inputs.shape[1]
    for field, values in (("mean", dataset.mean), ("std", dataset.std)):
        if len(values) != channels:
            raise ValueError(
                f"{name}: {field}={values}, expected one value per channel ({channels})"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: {field}={values}, expected finite values")
    if min(dataset.std, default=1.0) <= 0:
        raise ValueError(f"{name}: std={dataset.std}, expected > 0 in every channel")
    if not (np.isfinite(dataset.scale) and dataset.scale > 0):
        raise ValueError(f"{name}: scale={dataset.scale}, expected a finite number > 0")


def byte_set(
    name: str,
    file: Path,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    num_classes: int = 10,
) -> Dataset:
    """A data set of uint8 pixels, one class each; what is wrong with it is said with its file.

    Args:
        name: what it is called.
        file: where it was read from.
        images: [N, C, H, W].
        labels: [N].
        mean: of each channel [C], of pixels in [0, 1].
        std: their deviations [C].
        num_classes: how many there are.

    Returns:
        The data set.

    Raises:
        ValueError: it is none; names the file.
    """
    try:
        task = classification(images.shape[1:], num_classes)
        return Dataset(name, images, labels, task, 1 / 255, mean, std)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
