"""A user's own data, read from one `.npz` file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from clients.data.dataset import Dataset, Inputs, channel_moments, told
from clients.data.splits import hold_out
from clients.data.task import classification

LAYOUTS = ("NCHW", "NHWC")


def npz(
    path: str,
    test_share: float = 0.2,
    seed: int = 0,
    num_classes: Annotated[int, ">= 1"] | None = None,
    layout: str | None = None,
) -> tuple[Dataset, Dataset]:
    """A user's own file, written with `numpy.savez`.

    It holds `images` as [N, C, H, W], or [N, H, W] for grey, and `labels` as integers [N]; and, if
    the test set is given and not cut from these, `test_images` and `test_labels`. uint8 pixels are
    divided by 255, floats are used as they are (stored as float32). Mean and deviation are those
    of the train set.

    A class is a value that `labels` has: 1..C, values with gaps and large ones become 0..C - 1 in
    their order, which the data set's `label_values` say. Given `num_classes`, labels are classes as
    they are, and some may have no example.

    Args:
        path: the `.npz` file.
        test_share: share of the examples held out, in (0, 1); unused if the file has a test set.
        seed: of the shuffle that cuts test from train; unused likewise.
        num_classes: number of classes C, at least 1, of labels in 0..C - 1; None: one a value.
        layout: "NCHW" or "NHWC", of images with four axes; None: "NCHW", but images that look like
            "NHWC" are refused: if the last axis is the shortest, or the other two are a square.

    Returns:
        Train and test set, uint8 or float32.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is corrupt, arrays are missing or of the wrong shape or dtype, a label
            is negative or of the test set alone, or a channel is constant.
    """
    file = Path(path).expanduser().absolute()
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"{file}: layout={layout}, expected one of {', '.join(LAYOUTS)}")
    arrays = _npz_arrays(file)
    try:
        return _sets(file.name, arrays, test_share, seed, num_classes, layout)
    except ValueError as error:
        raise ValueError(f"{file}: {str(error).removeprefix(f'{file.name}: ')}") from error


def _sets(
    name: str,
    arrays: Mapping[str, npt.NDArray[Any]],
    test_share: float,
    seed: int,
    num_classes: int | None,
    layout: str | None,
) -> tuple[Dataset, Dataset]:
    images, found = _images(arrays, "images", layout), {"labels": _labels(arrays, "labels")}
    scale = 1 / 255 if images.dtype == np.uint8 else 1.0
    if not {"test_images", "test_labels"} & arrays.keys():
        (labels,), values, num_classes = _classes(found, num_classes)
        rng = np.random.default_rng(seed)
        task = classification(images.shape[1:], num_classes)
        return hold_out(name, images, labels, task, scale, test_share, rng, values)
    test_images = _images(arrays, "test_images", layout)
    found["test_labels"] = _labels(arrays, "test_labels")
    if (images.dtype, images.shape[1:]) != (test_images.dtype, test_images.shape[1:]):
        raise ValueError(
            f"expected test_images as {images.dtype} {list(images.shape[1:])} like images, "
            f"found {test_images.dtype} {list(test_images.shape[1:])}"
        )
    (labels, test_labels), values, num_classes = _classes(found, num_classes)
    task = classification(images.shape[1:], num_classes)
    about = task, scale, *channel_moments(name, images, scale), values
    return Dataset(name, images, labels, *about), Dataset(name, test_images, test_labels, *about)


def _classes(
    found: Mapping[str, npt.NDArray[Any]], num_classes: int | None
) -> tuple[list[npt.NDArray[np.int64]], tuple[int, ...] | None, int]:
    """Number the values that labels have; return the classes, their values and their number."""
    if num_classes is not None:
        for name, labels in found.items():
            if (most := int(labels.max())) >= num_classes:
                raise ValueError(
                    f"{name} go up to {most}, expected below num_classes={num_classes}"
                )
        return [labels.astype(np.int64) for labels in found.values()], None, num_classes
    # Python's integers: numpy turns uint64 beside int64 into floats, and wraps it as int64.
    parts = [np.unique(labels, return_inverse=True) for labels in found.values()]
    values = [[int(value) for value in distinct] for distinct, _ in parts]
    class_of = {value: number for number, value in enumerate(values[0])}
    if strange := sorted({*values[-1]} - class_of.keys()):
        raise ValueError(
            f"test_labels has {told(strange)}, which labels ({told(values[0])}) has not: expected "
            "both to name classes alike; if they do, say how many there are with num_classes="
        )
    classes = [
        np.array([class_of[value] for value in own], dtype=np.int64)[places]
        for own, (_, places) in zip(values, parts, strict=True)
    ]
    as_they_are = values[0][-1] == len(class_of) - 1
    return classes, None if as_they_are else tuple(values[0]), len(class_of)


def _npz_arrays(file: Path) -> dict[str, npt.NDArray[Any]]:
    if not file.is_file():
        raise FileNotFoundError(
            f"{file.name} not found: looked for {file}. It is a file of your own, written with "
            "numpy.savez(path, images=..., labels=...); say where it lies with data.source.path="
        )
    try:
        # Opened here, because numpy leaves a file open that begins like a zip and is none.
        with file.open("rb") as stream:
            content = np.load(stream, allow_pickle=False)  # object arrays are pickles: refused
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array (.npy)")
            return {name: content[name] for name in content.files}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        story = str(error)
        if "pickle" in story:  # numpy's advice would be to run what is in it
            story = "it is no such file, or holds Python objects, which are not read"
        raise ValueError(f"{file}: expected an .npz file of plain arrays: {story}") from error


def _array(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    if name not in arrays:
        raise ValueError(f"expected an array {name}, found {sorted(arrays)}")
    return arrays[name]


def _images(arrays: Mapping[str, npt.NDArray[Any]], name: str, layout: str | None) -> Inputs:
    images = _array(arrays, name)
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise ValueError(
            f"expected {name} as [N, C, H, W] or [N, H, W], none of them 0, "
            f"found {list(images.shape)}"
        )
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise ValueError(f"expected {name} as uint8 or floats, found {images.dtype}")
    if images.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what is too large for float32 is refused as infinite
            images = images.astype(np.float32, copy=False)
        if not np.isfinite(images).all():
            raise ValueError(f"{name} holds NaN or infinity, expected finite values of float32")
    if images.ndim == 3:
        return images[:, None]
    if layout is None and _channels_look_last(*images.shape[1:]):
        raise ValueError(
            f"{name} of shape {list(images.shape)} look like [N, H, W, C], expected [N, C, H, W]: "
            "say which with data.source.layout=NHWC or NCHW"
        )
    return np.ascontiguousarray(np.moveaxis(images, 3, 1)) if layout == "NHWC" else images


def _channels_look_last(first: int, second: int, last: int) -> bool:
    return last < min(first, second) or 1 < first == second != last


def _labels(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    labels = _array(arrays, name)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise ValueError(
            f"expected {name} as integers [N], found {labels.dtype} {list(labels.shape)}"
        )
    if (least := int(labels.min())) < 0:
        raise ValueError(f"{name} go down to {least}, expected none below 0")
    return labels
