"""MNIST and data sets in its format, each as (train, test). Nothing is ever downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from clients.data.dataset import Dataset, byte_set, channel_moments
from clients.data.public_file_formats import data_root, read_idx

MNIST_ORIGIN = (
    "the four idx files of MNIST (Y. LeCun, C. Cortes, C. Burges; yann.lecun.com/exdb/mnist, "
    "commonly given as CC BY-SA 3.0)"
)
FASHION_MNIST_ORIGIN = (
    "the four idx files of Fashion-MNIST (Zalando Research; "
    "github.com/zalandoresearch/fashion-mnist, MIT licence)"
)
KMNIST_ORIGIN = (
    "the four idx files of Kuzushiji-MNIST (T. Clanuwat and others, 2018, arXiv:1812.01718; "
    "codh.rois.ac.jp/kmnist, CC BY-SA 4.0)"
)
EMNIST_ORIGIN = (
    "the idx files of EMNIST (G. Cohen and others, 2017, arXiv:1702.05373; "
    "www.nist.gov/itl/products-and-services/emnist-dataset)"
)
EMNIST_CLASSES = {
    **{"balanced": 47, "byclass": 62, "bymerge": 47},
    **{"letters": 26, "digits": 10, "mnist": 10},
}
"""Cuts of EMNIST, and how many classes each has."""


def mnist(root: str | None = None) -> tuple[Dataset, Dataset]:
    """MNIST: 60,000 + 10,000 grey images of 28x28, 10 digits.

    Args:
        root: folder with `MNIST/raw/*-ubyte.gz` (or unpacked); None: $STILLHOUSE_DATA.

    Returns:
        Train and test set, uint8.

    Raises:
        FileNotFoundError: a file is missing, or no root is given.
        ValueError: a file is corrupt.
    """
    folder = data_root(root) / "MNIST" / "raw"
    return _idx_sets("mnist", folder, 0.1307, 0.3081, MNIST_ORIGIN)


def fashion_mnist(root: str | None = None) -> tuple[Dataset, Dataset]:
    """Fashion-MNIST: 60,000 + 10,000 grey images of 28x28, 10 kinds of clothing.

    Args:
        root: folder with `FashionMNIST/raw/*-ubyte.gz` (or unpacked); None: $STILLHOUSE_DATA.

    Returns:
        Train and test set, uint8.

    Raises:
        FileNotFoundError: a file is missing, or no root is given.
        ValueError: a file is corrupt.
    """
    folder = data_root(root) / "FashionMNIST" / "raw"
    return _idx_sets("fashion_mnist", folder, 0.2860, 0.3530, FASHION_MNIST_ORIGIN)


def kmnist(root: str | None = None) -> tuple[Dataset, Dataset]:
    """Kuzushiji-MNIST: 60,000 + 10,000 grey images of 28x28, 10 cursive characters.

    Args:
        root: folder with `KMNIST/raw/*-ubyte.gz` (or unpacked); None: $STILLHOUSE_DATA.

    Returns:
        Train and test set, uint8.

    Raises:
        FileNotFoundError: a file is missing, or no root is given.
        ValueError: a file is corrupt.
    """
    folder = data_root(root) / "KMNIST" / "raw"
    return _idx_sets("kmnist", folder, 0.1918, 0.3483, KMNIST_ORIGIN)


def emnist(root: str | None = None, cut: str = "balanced") -> tuple[Dataset, Dataset]:
    """EMNIST: grey images of 28x28 of handwritten letters and digits, upright.

    Args:
        root: folder with `EMNIST/raw/emnist-CUT-*-ubyte.gz` (or unpacked); None: $STILLHOUSE_DATA.
        cut: one of EMNIST_CLASSES, which says how many classes it has; of letters A is class 0.

    Returns:
        Train and test set, uint8, normalised by the train set's own mean and deviation.

    Raises:
        FileNotFoundError: a file is missing, or no root is given.
        ValueError: a file is corrupt, or there is no such cut.
    """
    if cut not in EMNIST_CLASSES:
        expected = ", ".join(EMNIST_CLASSES)
        raise ValueError(f"data.source.cut={cut}: expected one of {expected}")
    folder, moments = data_root(root) / "EMNIST" / "raw", None

    def one(part: str) -> Dataset:
        nonlocal moments
        stem = f"emnist-{cut}-{part}"
        images, labels, path = _idx_pair(folder, stem, EMNIST_ORIGIN)
        images = np.ascontiguousarray(images.transpose(0, 1, 3, 2))  # they lie on their side
        moments = moments or channel_moments(stem, images, 1 / 255)
        first = cut == "letters"  # whose labels are 1..26
        return byte_set("emnist", path, images, labels - first, *moments, EMNIST_CLASSES[cut])

    return one("train"), one("test")


def _idx_pair(
    folder: Path, stem: str, origin: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], Path]:
    images = read_idx(folder / f"{stem}-images-idx3-ubyte.gz", (None, 28, 28), origin)[:, None]
    path = folder / f"{stem}-labels-idx1-ubyte.gz"
    return images, read_idx(path, (len(images),), origin).astype(np.int64), path


def _idx_sets(
    name: str, folder: Path, mean: float, std: float, origin: str
) -> tuple[Dataset, Dataset]:
    def one(prefix: str) -> Dataset:
        images, labels, path = _idx_pair(folder, prefix, origin)
        return byte_set(name, path, images, labels, (mean,), (std,))

    return one("train"), one("t10k")
