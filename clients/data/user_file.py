"""A user's own data, read from one `.npz` file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from clients.data.dataset import Dataset, Inputs
from clients.data.own_arrays import numbered, own_sets
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

    It holds `images` as [N, C, H, W], or [N, H, W] for grey, and `labels` [N], integers or texts;
    and, if the test set is given and not cut from these, `test_images` and `test_labels`; and, if
    each example is somebody's, `owners` [N], integers or texts, for `partition=natural`, and
    `test_owners` beside a test set. Pixels of uint8 are divided by 255, floats are used as they are
    (stored as float32). Mean and deviation are those of the train set.

    A class is a value that `labels` has: 1..C, values with gaps, large ones and texts become
    0..C - 1 in their order, which the data set's `label_values` say. Given `num_classes`, labels
    are classes as they are, and some may have no example.

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
        return _sets(file.name, arrays, num_classes, layout, test_share, seed)
    except ValueError as error:
        raise ValueError(f"{file}: {str(error).removeprefix(f'{file.name}: ')}") from error


def _sets(
    name: str,
    arrays: Mapping[str, npt.NDArray[Any]],
    num_classes: int | None,
    layout: str | None,
    test_share: float,
    seed: int,
) -> tuple[Dataset, Dataset]:
    parts = ("", "test_") if {"test_images", "test_labels"} & arrays.keys() else ("",)
    images = {f"{part}images": _images(arrays, f"{part}images", layout) for part in parts}
    found = {f"{part}labels": _labels(arrays, f"{part}labels") for part in parts}
    labels, values, num_classes = numbered(found, num_classes)
    task = classification(images["images"].shape[1:], num_classes)
    for given, wanted in (
        ("owners", "images"),
        ("test_owners", "owners"),
        ("test_owners", "test_images"),
    ):
        if given in arrays and wanted not in arrays:
            raise ValueError(f"{given} without {wanted}: nobody asks for them")
    whose = [_labels(arrays, f"{p}owners") if f"{p}owners" in arrays else None for p in parts]
    for part, owners, own in zip(parts, whose, labels, strict=True):
        if owners is not None and len(owners) != len(own):
            raise ValueError(f"expected {len(own)} {part}owners, one for each image: {len(owners)}")
    return own_sets(name, images, labels, task, test_share, seed, values, owners=whose)


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
    if labels.ndim != 1 or labels.dtype.kind not in "iuU" or not len(labels):
        raise ValueError(
            f"expected {name} as integers or texts [N], found {labels.dtype} {list(labels.shape)}"
        )
    if labels.dtype.kind != "U" and (least := int(labels.min())) < 0:
        raise ValueError(f"{name} go down to {least}, expected none below 0")
    return labels
