"""Labelled images in their stored dtype, and the one way they become network inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

# Anything else would be stored larger than it needs to be (float64) or has no agreed scale (int32).
STORED_DTYPES = (np.dtype(np.uint8), np.dtype(np.float32))


@dataclass(frozen=True, eq=False)  # eq=False: arrays have no truth value, so == could only raise
class Dataset:
    """A set of labelled images, kept as small as it lies on disk.

    Pixels become network inputs only batch by batch, in `normalised`, so that a data set of uint8
    takes a quarter of the memory it would take as float32.

    Attributes:
        name: what messages call it.
        images: [N, C, H, W], uint8 or float32.
        labels: [N], int64, each in 0..num_classes - 1.
        num_classes: number of classes, at least 1.
        scale: pixels are multiplied by it first: 1/255 for uint8 images, 1/16 for digits, 1 for
            floats.
        mean: per channel, after scaling.
        std: per channel, after scaling, positive.
        label_values: [C], what its file calls the classes; None: 0..num_classes - 1.
    """

    name: str
    images: Images
    labels: npt.NDArray[np.int64]
    num_classes: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label_values: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check_arrays(self)
        _check_labels(self)
        _check_constants(self)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        _, channels, height, width = self.images.shape
        return channels, height, width


def subset(dataset: Dataset, indices: Indices) -> Dataset:
    """Copy some examples into a data set of their own.

    Args:
        dataset: where they are taken from.
        indices: [M], in 0..N - 1; the order is kept, an index may occur twice.

    Returns:
        M examples with the same name, classes and constants; shares no memory with `dataset`.
    """
    images, labels = dataset.images.take(indices, axis=0), dataset.labels.take(indices)
    return replace(dataset, images=images, labels=labels)


def normalised(dataset: Dataset, indices: Indices) -> npt.NDArray[np.float32]:
    """Network inputs of some examples: (pixels * scale - mean) / std per channel.

    Computed as pixels * (scale / std) - mean / std: the same numbers up to float32 rounding, for
    one pass over the batch less.

    Args:
        dataset: where the examples are taken from.
        indices: [B], in 0..N - 1.

    Returns:
        [B, C, H, W], float32, freshly allocated, writable and C-contiguous.
    """
    std = np.asarray(dataset.std)
    gain = np.asarray(dataset.scale / std, dtype=np.float32)[:, None, None]
    shift = np.asarray(np.asarray(dataset.mean) / std, dtype=np.float32)[:, None, None]
    # take() always copies, also from float32 images, so working in place never reaches the store.
    inputs: npt.NDArray[np.float32] = dataset.images.take(indices, axis=0).astype(
        np.float32, order="C", copy=False
    )
    inputs *= gain
    inputs -= shift
    # For one channel "channels first" and "channels last" are the same memory, and torch goes by
    # the stride: with 1 it stays channels last after the first convolution, and a local step of
    # the convolutional networks takes 1.14 to 1.36 times less on grey images.
    batch, channels, height, width = inputs.shape
    if channels == 1:
        return inputs.reshape(batch, height, width, 1).transpose(0, 3, 1, 2)
    return inputs


def channel_moments(
    name: str, images: Images, scale: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel after scaling, to build a `Dataset` with.

    Args:
        name: what the message calls it.
        images: [N, C, H, W], N at least 1.
        scale: pixels are multiplied by it first.

    Returns:
        Means [C] and standard deviations [C].

    Raises:
        ValueError: a channel is constant, or as good as: rounded to float32, which has 24 bits,
            its inputs would be off by a sixteenth of their deviation or more.
    """
    # Channel by channel: the float64 temporary of std() is then 1/C as large.
    channels = range(images.shape[1])
    means = tuple(float(images[:, c].mean(dtype=np.float64)) * scale for c in channels)
    stds = tuple(float(images[:, c].std(dtype=np.float64)) * scale for c in channels)
    least = float(np.finfo(np.float32).tiny)
    for channel, (mean, std) in enumerate(zip(means, stds, strict=True)):
        if std <= max(abs(mean) * 2**-20, least):
            raise ValueError(
                f"{name}: channel {channel} of images is constant (mean {mean:g}, deviation "
                f"{std:g}), expected values that differ: leave it out, or shift and scale it"
            )
    return means, stds


def renumbered(dataset: Dataset) -> str | None:
    """Say which label of the file is which class.

    Args:
        dataset: any.

    Returns:
        A line, or None where they are the same.
    """
    if dataset.label_values is None:
        return None
    last = dataset.num_classes - 1
    return f"{dataset.name}: its labels {told(dataset.label_values)} are the classes 0..{last} here"


def told(values: Sequence[int]) -> str:
    """Say which values there are.

    Args:
        values: distinct, in increasing order, at least one.

    Returns:
        Such as "1..10" or "0, 5, 7", at most nine of them.
    """
    if 1 < len(values) == values[-1] - values[0] + 1:
        return f"{values[0]}..{values[-1]}"
    shown = [str(value) for value in values]
    return ", ".join(shown if len(shown) < 10 else [*shown[:8], "...", shown[-1]])


def _check_arrays(dataset: Dataset) -> None:
    images, labels, name = dataset.images, dataset.labels, dataset.name
    if images.ndim != 4:
        raise ValueError(f"{name}: images has shape {images.shape}, expected [N, C, H, W]")
    if images.dtype not in STORED_DTYPES:
        raise ValueError(f"{name}: images has dtype {images.dtype}, expected uint8 or float32")
    if labels.dtype != np.int64:
        raise ValueError(f"{name}: labels has dtype {labels.dtype}, expected int64")
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{name}: labels has shape {labels.shape}, expected ({images.shape[0]},): "
            "one label for each image"
        )
    if images.dtype == np.float32 and not np.isfinite(images).all():
        raise ValueError(f"{name}: images holds NaN or infinity, expected finite values")


def _check_labels(dataset: Dataset) -> None:
    if dataset.num_classes < 1:
        raise ValueError(f"{dataset.name}: num_classes={dataset.num_classes}, expected at least 1")
    if not len(dataset):
        return
    lowest, highest = int(dataset.labels.min()), int(dataset.labels.max())
    if lowest < 0 or highest >= dataset.num_classes:
        raise ValueError(
            f"{dataset.name}: labels lie in {lowest}..{highest}, "
            f"expected 0..{dataset.num_classes - 1} (num_classes={dataset.num_classes})"
        )


def _check_constants(dataset: Dataset) -> None:
    name, channels = dataset.name, dataset.images.shape[1]
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
