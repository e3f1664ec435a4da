"""Tables of numbers: data sets of columns, for regression."""

from __future__ import annotations

import numpy as np

from clients.data.dataset import Dataset
from clients.data.public_file_formats import scikit_learn_table
from clients.data.splits import hold_out
from clients.data.task import regression


def diabetes(test_share: float = 0.2, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Diabetes progression, shipped with scikit-learn: 442 patients, 10 columns, one number.

    Args:
        test_share: share of the examples held out, in (0, 1).
        seed: of the shuffle that cuts test from train.

    Returns:
        Train and test set, float32; the number is what the disease came to after a year, less its
        mean over all and in units of its deviation, so that a guess of 0 has `rmse` 1 and `r2` 0.

    Raises:
        ValueError: `test_share` is out of range.

    Reference: Efron, Hastie, Johnstone, Tibshirani, "Least angle regression", 2004.
    """
    columns = scikit_learn_table("diabetes_data_raw.csv.gz")
    progression = scikit_learn_table("diabetes_target.csv.gz")
    labels = ((progression - progression.mean()) / progression.std()).astype(np.float32)[:, None]
    inputs, task = columns.astype(np.float32), regression((columns.shape[1],))
    rng = np.random.default_rng(seed)
    return hold_out("diabetes", inputs, labels, task, 1.0, test_share, rng)
