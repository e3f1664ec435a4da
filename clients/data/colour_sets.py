"""CIFAR and other data sets of small colour photographs, each as (train, test)."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clients.data.dataset import Dataset, byte_set, channel_moments
from clients.data.public_file_formats import (
    data_root,
    missing,
    read_cifar_batch,
    read_image_folder,
    read_mat,
)

Read = tuple[Path, Path, npt.NDArray[np.uint8], npt.NDArray[np.int64]]
"""Files of the images and of the labels of a set, and what is in them."""

CIFAR10_ORIGIN = (
    "the python version of CIFAR-10 (A. Krizhevsky, V. Nair, G. Hinton; "
    "www.cs.toronto.edu/~kriz/cifar.html, no licence stated: cite the 2009 report)"
)
CIFAR100_ORIGIN = CIFAR10_ORIGIN.replace("CIFAR-10 ", "CIFAR-100 ")
SVHN_ORIGIN = (
    "the cropped digits of SVHN (Y. Netzer and others, 2011; ufldl.stanford.edu/housenumbers, for "
    "non-commercial use)"
)
CINIC10_ORIGIN = (
    "CINIC-10 (L. Darlow and others, 2018, arXiv:1810.03505; github.com/BayesWatch/cinic-10, "
    "files at the University of Edinburgh's DataShare)"
)
STL10_ORIGIN = (
    "the binary files of STL-10 (A. Coates, H. Lee, A. Ng, 2011; cs.stanford.edu/~acoates/stl10, "
    "images of ImageNet: see its terms)"
)
# Alphabetical, which is CIFAR-10's own numbering.
CINIC10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def cifar10(root: str | None = None) -> tuple[Dataset, Dataset]:
    """CIFAR-10: 50,000 + 10,000 colour images of 32x32, 10 classes.

    Args:
        root: folder with `cifar-10-batches-py/data_batch_1..5` and `test_batch`; None:
            $STILLHOUSE_DATA.

    Returns:
        Train and test set, uint8.

    Raises:
        FileNotFoundError: a file is missing, or no root is given.
        ValueError: a file is corrupt, or its pickle names anything but numpy arrays.
    """
    folder = data_root(root) / "cifar-10-batches-py"
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

    def one(*file_names: str) -> Dataset:
        batches = [read_cifar_batch(folder / name, CIFAR10_ORIGIN) for name in file_names]
        images = np.concatenate([images for images, _ in batches])
        labels = np.concatenate([labels for _, labels in batches])
        return byte_set("cifar10", folder, images, labels, mean, std)

    return one(*(f"data_batch_{n}" for n in range(1, 6))), one("test_batch")


def cifar100(root: str | None = None, coarse: bool = False) -> tuple[Dataset, Dataset]:
    """CIFAR-100: 50,000 + 10,000 colour images of 32x32, 100 classes in 20 superclasses.

    Args:
        root: folder with `cifar-100-python/train` and `test`; None: $STILLHOUSE_DATA.
        coarse: take the superclasses for classes.

    Returns:
        Train and test set, uint8.

    Raises:
        FileNotFoundError: a file is missing, or no root is given.
        ValueError: a file is corrupt, or its pickle names anything but numpy arrays.
    """
    folder = data_root(root) / "cifar-100-python"
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    key, classes = ("coarse_labels", 20) if coarse else ("fine_labels", 100)

    def one(part: str) -> Dataset:
        images, labels = read_cifar_batch(folder / part, CIFAR100_ORIGIN, key)
        return byte_set("cifar100", folder / part, images, labels, mean, std, classes)

    return one("train"), one("test")


def svhn(root: str | None = None) -> tuple[Dataset, Dataset]:
    """SVHN, cropped: 73,257 + 26,032 colour images of 32x32 of house numbers' digits.

    Args:
        root: folder with `SVHN/train_32x32.mat` and `test_32x32.mat`; None: $STILLHOUSE_DATA.

    Returns:
        Train and test set, uint8, normalised by the train set's own mean and deviation; the digit 0
        is class 0.

    Raises:
        FileNotFoundError: a file is missing, or no root is given.
        ValueError: a file is corrupt.
    """
    folder = data_root(root) / "SVHN"

    def read(part: str) -> Read:
        path = folder / f"{part}_32x32.mat"
        images, labels = read_mat(path, SVHN_ORIGIN)
        return path, path, images, labels % 10

    return _own_moments("svhn", read)


def stl10(root: str | None = None) -> tuple[Dataset, Dataset]:
    """STL-10: 5,000 + 8,000 colour images of 96x96, 10 classes; its unlabelled ones are not read.

    Args:
        root: folder with `stl10_binary/{train,test}_{X,y}.bin`; None: $STILLHOUSE_DATA.

    Returns:
        Train and test set, uint8, normalised by the train set's own mean and deviation; classes
        0..9 are the files' 1..10.

    Raises:
        FileNotFoundError: a file is missing, or no root is given.
        ValueError: a file is corrupt.
    """
    folder = data_root(root) / "stl10_binary"

    def read(part: str) -> Read:
        whole, path = folder / f"{part}_X.bin", folder / f"{part}_y.bin"
        # Column by column in the file: [N, C, W, H].
        images = _read_bytes(whole, (3, 96, 96)).transpose(0, 1, 3, 2)
        labels = _read_bytes(path, ()).astype(np.int64) - 1
        return whole, path, images, labels

    return _own_moments("stl10", read)


def _own_moments(name: str, read: Callable[[str], Read]) -> tuple[Dataset, Dataset]:
    """Make train and test set of files, normalised by the train set's mean and deviation."""
    file, path, images, labels = read("train")
    moments = channel_moments(file.name, images, 1 / 255)
    train = byte_set(name, path, np.ascontiguousarray(images), labels, *moments)
    _, path, images, labels = read("test")
    return train, byte_set(name, path, np.ascontiguousarray(images), labels, *moments)


def _read_bytes(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Read a file of nothing but examples of a shape, [N, *shape]."""
    if not path.is_file():
        raise FileNotFoundError(missing(path, STL10_ORIGIN))
    found, each = np.fromfile(path, np.uint8), math.prod(shape)
    if not len(found) or len(found) % each:
        raise ValueError(f"{path}: {len(found)} bytes, expected a multiple of {each}")
    return found.reshape(-1, *shape)


def cinic10(root: str | None = None, include_valid: bool = False) -> tuple[Dataset, Dataset]:
    """CINIC-10: 90,000 train, 90,000 valid and 90,000 test images of 32x32, CIFAR-10's classes.

    Args:
        root: folder with `CINIC-10/{train,valid,test}/<class>/*.png`; None: $STILLHOUSE_DATA.
        include_valid: append the valid folder to the train set.

    Returns:
        Train and test set, uint8.

    Raises:
        FileNotFoundError: a folder is missing or empty, or no root is given.
        ValueError: a file is no PNG of 32x32.
    """
    folder = data_root(root) / "CINIC-10"
    # As published in the data set's repository; measured on the train folder.
    mean, std = (0.47889522, 0.47227842, 0.43047404), (0.24205776, 0.23828046, 0.25874835)

    def one(*parts: str) -> Dataset:
        pairs = [
            read_image_folder(folder / part, CINIC10_CLASSES, (32, 32), CINIC10_ORIGIN)
            for part in parts
        ]
        images = np.concatenate([images for images, _ in pairs])
        labels = np.concatenate([labels for _, labels in pairs])
        return byte_set("cinic10", folder, images, labels, mean, std)

    return one("train", "valid") if include_valid else one("train"), one("test")
