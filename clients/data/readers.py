"""Data sets by name, each as (train, test). Nothing is ever downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from clients.data.dataset import Dataset
from clients.data.formats import data_root, read_cifar_batch, read_idx, read_image_folder
from clients.data.splits import hold_out
from clients.data.task import classification

MNIST_ORIGIN = (
    "the four idx files of MNIST (Y. LeCun, C. Cortes, C. Burges; yann.lecun.com/exdb/mnist, "
    "commonly given as CC BY-SA 3.0)"
)
FASHION_MNIST_ORIGIN = (
    "the four idx files of Fashion-MNIST (Zalando Research; "
    "github.com/zalandoresearch/fashion-mnist, MIT licence)"
)
CIFAR10_ORIGIN = (
    "the python version of CIFAR-10 (A. Krizhevsky, V. Nair, G. Hinton; "
    "www.cs.toronto.edu/~kriz/cifar.html, no licence stated: cite the 2009 report)"
)
CINIC10_ORIGIN = (
    "CINIC-10 (L. Darlow and others, 2018, arXiv:1810.03505; github.com/BayesWatch/cinic-10, "
    "files at the University of Edinburgh's DataShare)"
)
# Alphabetical, which is CIFAR-10's own numbering.
CINIC10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def digits(test_share: float = 0.2, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Handwritten digits that ship with scikit-learn: 1,797 grey images of 8x8, 10 classes.

    Args:
        test_share: share of the examples held out, in (0, 1).
        seed: of the shuffle that cuts test from train.

    Returns:
        Train and test set, uint8 with values 0..16.

    Raises:
        ValueError: `test_share` is out of range.
    """
    from sklearn.datasets import load_digits  # here: importing scikit-learn takes a second

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[:, None]  # float64 on loading, but whole numbers
    labels = bunch.target.astype(np.int64)
    rng = np.random.default_rng(seed)
    task = classification((1, 8, 8), 10)
    return hold_out("digits", images, labels, task, 1 / 16, test_share, rng)


def blobs(
    num_examples: int = 600,
    num_classes: int = 4,
    image_shape: tuple[int, int, int] = (1, 4, 4),
    spread: float = 1.0,
    seed: int = 0,
    test_share: float = 0.25,
) -> tuple[Dataset, Dataset]:
    """Synthetic images, one Gaussian cloud per class around a centre drawn from N(0, 1).

    Two centres of D = C*H*W pixels lie about sqrt(2 D) apart; at the default D = 16 and spread 1
    that is 5.7 deviations: quickly learned, not trivial.

    Args:
        num_examples: train and test together, at least 2.
        num_classes: at least 1; class sizes differ by at most 1.
        image_shape: (C, H, W).
        spread: standard deviation around the centre, at least 0.
        seed: of centres, noise and the cut.
        test_share: share of the examples held out, in (0, 1).

    Returns:
        Train and test set, float32.

    Raises:
        ValueError: a number is out of range.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes={num_classes}, expected at least 1")
    if not 0 <= spread < np.inf:
        raise ValueError(f"spread={spread}, expected a finite number of at least 0")
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_classes, *image_shape))
    labels = np.arange(num_examples, dtype=np.int64) % num_classes
    noise = rng.normal(scale=spread, size=(num_examples, *image_shape))
    images = (centres[labels] + noise).astype(np.float32)
    task = classification(image_shape, num_classes)
    return hold_out("blobs", images, labels, task, 1.0, test_share, rng)


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


def _idx_sets(
    name: str, folder: Path, mean: float, std: float, origin: str
) -> tuple[Dataset, Dataset]:
    def one(prefix: str) -> Dataset:
        path = folder / f"{prefix}-images-idx3-ubyte.gz"
        images = read_idx(path, (None, 28, 28), origin)[:, None]
        path = folder / f"{prefix}-labels-idx1-ubyte.gz"
        labels = read_idx(path, (len(images),), origin).astype(np.int64)
        return _byte_set(name, path, images, labels, (mean,), (std,))

    return one("train"), one("t10k")


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
        return _byte_set("cifar10", folder, images, labels, mean, std)

    return one(*(f"data_batch_{n}" for n in range(1, 6))), one("test_batch")


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
        return _byte_set("cinic10", folder, images, labels, mean, std)

    return one("train", "valid") if include_valid else one("train"), one("test")


def _byte_set(
    name: str,
    file: Path,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Dataset:
    """A set of 10 classes of uint8 pixels; what is wrong with it is said with its file."""
    try:
        task = classification(images.shape[1:], 10)
        return Dataset(name, images, labels, task, 1 / 255, mean, std)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
