"""A user's own data, read from one `.npz` file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clients.data.dataset import Dataset, Images, channel_moments
from clients.data.splits import hold_out


def npz(path: str, test_share: float = 0.2, seed: int = 0) -> tuple[Dataset, Dataset]:
    """A user's own file, written with `numpy.savez`.

    It holds `images` as [N, C, H, W], or [N, H, W] for grey, and `labels` as integers [N] from 0;
    and, if the test set is given and not cut from these, `test_images` and `test_labels`. uint8
    pixels are divided by 255, floats are used as they are (stored as float32). Mean and deviation
    are those of the train set.

    Args:
        path: the `.npz` file.
        test_share: share of the examples held out, in (0, 1); unused if the file has a test set.
        seed: of the shuffle that cuts test from train; unused likewise.

    Returns:
        Train and test set, uint8 or float32.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is corrupt, or arrays are missing or of the wrong shape or dtype.
    """
    file = Path(path).expanduser().absolute()
    arrays = _npz_arrays(file)
    images, labels = _npz_images(file, arrays, "images"), _npz_labels(file, arrays, "labels")
    scale = 1 / 255 if images.dtype == np.uint8 else 1.0
    if not {"test_images", "test_labels"} & arrays.keys():
        num_classes = 1 + int(labels.max())
        rng = np.random.default_rng(seed)
        return hold_out(file.name, images, labels, num_classes, scale, test_share, rng)
    test_images = _npz_images(file, arrays, "test_images")
    test_labels = _npz_labels(file, arrays, "test_labels")
    if (images.dtype, images.shape[1:]) != (test_images.dtype, test_images.shape[1:]):
        raise ValueError(
            f"{file}: expected test_images as {images.dtype} {list(images.shape[1:])} like images, "
            f"found {test_images.dtype} {list(test_images.shape[1:])}"
        )
    num_classes = 1 + int(max(labels.max(), test_labels.max()))
    mean, std = channel_moments(images, scale)
    return (
        Dataset(file.name, images, labels, num_classes, scale, mean, std),
        Dataset(file.name, test_images, test_labels, num_classes, scale, mean, std),
    )


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
        raise ValueError(f"{file}: expected an .npz file of plain arrays: {error}") from error


def _npz_array(file: Path, arrays: dict[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    if name not in arrays:
        raise ValueError(f"{file}: expected an array {name}, found {sorted(arrays)}")
    return arrays[name]


def _npz_images(file: Path, arrays: dict[str, npt.NDArray[Any]], name: str) -> Images:
    images = _npz_array(file, arrays, name)
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise ValueError(
            f"{file}: expected {name} as [N, C, H, W] or [N, H, W], none of them 0, "
            f"found {list(images.shape)}"
        )
    if images.ndim == 4 and images.shape[3] in (1, 3, 4) and images.shape[1] not in (1, 3, 4):
        raise ValueError(
            f"{file}: {name} of shape {list(images.shape)} look like [N, H, W, C], expected "
            f"[N, C, H, W]: numpy.moveaxis({name}, 3, 1)"
        )
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise ValueError(f"{file}: expected {name} as uint8 or floats, found {images.dtype}")
    if images.dtype.kind == "f":
        images = images.astype(np.float32, copy=False)
    return images if images.ndim == 4 else images[:, None]


def _npz_labels(
    file: Path, arrays: dict[str, npt.NDArray[Any]], name: str
) -> npt.NDArray[np.int64]:
    labels = _npz_array(file, arrays, name)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise ValueError(
            f"{file}: expected {name} as integers [N], found {labels.dtype} {list(labels.shape)}"
        )
    return labels.astype(np.int64)
