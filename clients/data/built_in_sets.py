"""Data sets that need no files, each as (train, test): scikit-learn's digits, and made-up ones."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from clients.data.dataset import Dataset
from clients.data.public_file_formats import scikit_learn_table
from clients.data.splits import hold_out
from clients.data.task import classification


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
    table = scikit_learn_table("digits.csv.gz", ",")  # whole numbers, a row's last its label
    images = table[:, :-1].reshape(-1, 1, 8, 8).astype(np.uint8)
    labels = table[:, -1].astype(np.int64)
    rng = np.random.default_rng(seed)
    task = classification((1, 8, 8), 10)
    return hold_out("digits", images, labels, task, 1 / 16, test_share, rng)


def blobs(
    num_examples: Annotated[int, ">= 1"] = 600,
    num_classes: Annotated[int, ">= 1"] = 4,
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
