"""File formats of public data sets: where a file is looked for, and how its bytes are read.

Everything that can be wrong with a file is said with the file's path, what was expected and what
was found.
"""

from __future__ import annotations

import gzip
import importlib.util
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clients.data.pickles import read_pickled_dict

HOW_TO_SET_ROOT = "set the folder that holds the data sets with data.root=/path or $STILLHOUSE_DATA"

# idx magic numbers: 0x08 says unsigned bytes, the last byte says how many dimensions follow.
_IDX_MAGIC = {3: 2051, 1: 2049}


def data_root(root: str | None) -> Path:
    """Find the folder that holds the data sets.

    Args:
        root: the folder, or None to ask the environment variable STILLHOUSE_DATA.

    Returns:
        The absolute path; whether it exists is found out when a file is looked for in it.

    Raises:
        FileNotFoundError: neither is given.
    """
    chosen = root or os.environ.get("STILLHOUSE_DATA")
    if not chosen:
        raise FileNotFoundError(
            "no data root: neither data.root nor $STILLHOUSE_DATA is set; "
            f"{HOW_TO_SET_ROOT} (inside it: MNIST/raw, FashionMNIST/raw, KMNIST/raw, EMNIST/raw, "
            "cifar-10-batches-py, cifar-100-python, CINIC-10, SVHN, stl10_binary, "
            "tinyshakespeare, femnist). "
            "data=digits, data=blobs and data=diabetes need no files"
        )
    return Path(chosen).expanduser().absolute()


def scikit_learn_table(name: str, delimiter: str | None = None) -> npt.NDArray[np.float64]:
    """Read a table that ships with scikit-learn, whose import takes a second and 100 MB.

    Args:
        name: of a file of numbers in its `datasets/data`, packed by gzip.
        delimiter: between columns; None: spaces.

    Returns:
        Its rows [N, D], or one column [N].
    """
    place = importlib.util.find_spec("sklearn")
    assert place is not None, "it is a requirement"
    assert place.origin is not None, "it is a package"
    with gzip.open(Path(place.origin).parent / "datasets" / "data" / name, "rt") as rows:
        return np.loadtxt(rows, delimiter=delimiter)


def missing(path: Path, origin: str) -> str:
    """The message for a file or folder that is not there.

    Args:
        path: where it was looked for.
        origin: the data set by name, with its authors and licence or citation page.

    Returns:
        A sentence that names the file, the place and the origin, for a FileNotFoundError.
    """
    return (
        f"{path.name} not found: looked for {path.absolute()}. It is part of {origin}. "
        f"To look elsewhere, {HOW_TO_SET_ROOT}"
    )


def read_idx(path: Path, dims: tuple[int | None, ...], origin: str) -> npt.NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, the format of MNIST.

    Args:
        path: the gzip file, `*.gz`; the unpacked file beside it is read when it is absent.
        dims: expected lengths of its 1 or 3 dimensions, None for any.
        origin: where the file comes from, for the message when it is missing.

    Returns:
        uint8 array with as many dimensions as `dims`; read-only, a view of the file's bytes.

    Raises:
        FileNotFoundError: neither the packed nor the unpacked file is there.
        ValueError: truncated, not gzip, wrong magic, dimensions or number of bytes.
    """
    path, content = _packed_or_not(path, origin)
    header_bytes = 4 + 4 * len(dims)
    if len(content) < header_bytes:
        raise ValueError(f"{path}: expected a header of {header_bytes} bytes, found {len(content)}")
    magic, *found = (int(n) for n in np.frombuffer(content, ">u4", count=1 + len(dims)))
    if magic != _IDX_MAGIC[len(dims)]:
        raise ValueError(f"{path}: expected magic {_IDX_MAGIC[len(dims)]}, found {magic}")
    if any(want not in (None, got) for want, got in zip(dims, found, strict=True)):
        expected = ["any" if want is None else want for want in dims]
        raise ValueError(f"{path}: expected dimensions {expected}, found {found}")
    # Python integers: a forged header must not overflow into a number that fits.
    num_bytes = header_bytes + int(np.prod(np.array(found, dtype=object)))
    if len(content) != num_bytes:
        raise ValueError(
            f"{path}: expected {num_bytes} bytes for dimensions {found}, found {len(content)}"
        )
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(found)


def _packed_or_not(path: Path, origin: str) -> tuple[Path, bytes]:
    if not path.is_file():
        unpacked = path.with_suffix("")
        if not unpacked.is_file():
            raise FileNotFoundError(missing(path, origin))
        return unpacked, unpacked.read_bytes()
    try:
        return path, gzip.decompress(path.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: truncated or corrupt gzip, expected a whole file: {error}"
        ) from error


def read_cifar_batch(
    path: Path, origin: str, key: str = "labels"
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read one batch of CIFAR's python version.

    Args:
        path: `data_batch_1` to `data_batch_5` or `test_batch`; of CIFAR-100 `train` or `test`.
        origin: where the file comes from, for the message when it is missing.
        key: where labels are; CIFAR-100 has `fine_labels` and `coarse_labels`.

    Returns:
        Images [N, 3, 32, 32], uint8, and labels [N], int64.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: foreign or corrupt pickle, wrong keys, shapes or dtype.
    """
    if not path.is_file():
        raise FileNotFoundError(missing(path, origin))
    batch = read_pickled_dict(path)
    if not {"data", key} <= batch.keys():
        raise ValueError(f"{path}: expected keys data and {key}, found {sorted(map(str, batch))}")
    data, labels = batch["data"], _integers(path, key, batch[key])
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2:
        raise ValueError(f"{path}: expected data as uint8 [N, 3072], found {_kind(data)}")
    # 3072 = 1024 red, 1024 green, 1024 blue, each row by row: already [C, H, W].
    if data.shape != (len(labels), 3072):
        raise ValueError(
            f"{path}: expected data [{len(labels)}, 3072] for {len(labels)} labels, "
            f"found {list(data.shape)}"
        )
    return data.reshape(-1, 3, 32, 32), labels


def read_mat(path: Path, origin: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read images and labels of a MATLAB file, the format of SVHN.

    Args:
        path: the file, with X [H, W, 3, N] of bytes and y [N, 1].
        origin: where it comes from, for the message when it is missing.

    Returns:
        Images [N, 3, H, W], uint8, and labels [N], int64.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: it is none, or holds something else.
    """
    from scipy.io import loadmat  # here, because only one data set needs it

    if not path.is_file():
        raise FileNotFoundError(missing(path, origin))
    try:
        content = loadmat(path, variable_names=["X", "y"])
    except Exception as error:  # a forged or cut file can raise nearly anything
        raise ValueError(
            f"{path}: expected a MATLAB file: {type(error).__name__}: {error}"
        ) from error
    images, labels = content.get("X"), content.get("y")
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"{path}: expected X as uint8 [H, W, 3, N], found {_kind(images)}")
    found = _integers(path, "y", np.ravel(labels))
    if images.shape[2:] != (3, len(found)):
        raise ValueError(
            f"{path}: expected X [H, W, 3, {len(found)}] for {len(found)} labels, "
            f"found {list(images.shape)}"
        )
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), found


def _integers(path: Path, field: str, values: Any) -> npt.NDArray[np.int64]:
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of unequal length
        raise ValueError(
            f"{path}: expected {field} as integers [N], found a ragged list"
        ) from error
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{path}: expected {field} as integers [N], found {_kind(array)}")
    return array.astype(np.int64)


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__


def read_image_folder(
    folder: Path, class_names: tuple[str, ...], size: tuple[int, int], origin: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read `<folder>/<class>/*.png`, classes in the order given and paths sorted within each.

    Args:
        folder: the folder with one folder per class.
        class_names: [C], names of the class folders; the position is the label.
        size: (H, W) that every image must have, in pixels.
        origin: where the folder comes from, for the message when it is missing.

    Returns:
        Colour images [N, 3, H, W], uint8 (grey files repeat their channel), and labels [N], int64.

    Raises:
        FileNotFoundError: a class folder is missing or holds no PNG.
        ValueError: a file is no image, or of another size.
    """
    paths: list[Path] = []
    labels: list[int] = []
    for label, class_name in enumerate(class_names):
        found = sorted((folder / class_name).glob("*.png"))
        if not found:
            raise FileNotFoundError(missing(folder / class_name / "*.png", origin))
        paths += found
        labels += [label] * len(found)
    images = np.empty((len(paths), 3, *size), dtype=np.uint8)  # filled in place: never held twice
    for image, path in zip(images, paths, strict=True):
        image[...] = _read_png(path, size).transpose(2, 0, 1)
    return images, np.array(labels, dtype=np.int64)


def _read_png(path: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    from PIL import Image  # here, because only one data set needs it

    try:
        with Image.open(path, formats=("PNG",)) as image:
            found = image.size[::-1]  # PIL says (width, height)
            if found == size:  # asked before decoding: a forged header cannot claim gigabytes
                return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # PIL says "broken PNG" as SyntaxError
        raise ValueError(f"{path}: expected a PNG image, found none: {error}") from error
    raise ValueError(f"{path}: expected an image of (H, W) = {size}, found {found}")
