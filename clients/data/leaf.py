"""FEMNIST as LEAF's scripts write it: JSON, by writer. Nothing is ever downloaded.

Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018 (arXiv:1812.01097).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from clients.data.dataset import Dataset, Indices
from clients.data.own_arrays import own_sets
from clients.data.public_file_formats import data_root, missing
from clients.data.task import classification

FEMNIST_ORIGIN = (
    "the folders train and test that LEAF's data/femnist/preprocess.sh -s niid --sf 1.0 -t sample "
    "writes (S. Caldas and others, 2018, arXiv:1812.01097; github.com/TalwalkarLab/leaf, BSD "
    "2-clause)"
)
FEMNIST_CLASSES = 62


def femnist(root: str | None = None) -> tuple[Dataset, Dataset]:
    """FEMNIST: grey images of 28x28, 62 letters and digits; a writer is an owner.

    Images are of as many writers as were sampled, 3,550 in all, for `partition=natural`.

    Args:
        root: folder with `femnist/train/*.json` and `femnist/test/*.json`; None: $STILLHOUSE_DATA.

    Returns:
        Train and test set, float32 in [0, 1], 1 = paper.

    Raises:
        FileNotFoundError: a folder is missing or holds no JSON, or no root is given.
        ValueError: a file is not what LEAF writes.
    """
    folder = data_root(root) / "femnist"
    shape, inputs, labels, writers = (1, 28, 28), {}, [], []
    for which in ("train", "test"):
        files = sorted((folder / which).glob("*.json"))
        if not files:
            raise FileNotFoundError(missing(folder / which / "*.json", FEMNIST_ORIGIN))
        found = [part for file in files for part in _of_writers(file, shape)]
        inputs[which] = np.concatenate([images for _, images, _ in found])
        labels.append(np.concatenate([own for _, _, own in found]))
        writers.append(np.repeat([name for name, _, _ in found], [len(own) for *_, own in found]))
    task = classification(shape, FEMNIST_CLASSES)
    return own_sets("femnist", inputs, labels, task, 0.0, 0, owners=writers)


def _of_writers(
    file: Path, shape: tuple[int, ...]
) -> list[tuple[str, np.ndarray[Any, Any], Indices]]:
    """Return name, inputs [n, *shape] and labels [n] of each writer of one file."""
    try:
        users = json.loads(file.read_bytes())["user_data"]
        found = [
            (str(name), np.array(each["x"], np.float32).reshape(-1, *shape), np.array(each["y"]))
            for name, each in users.items()
            if each["y"]
        ]
        if not found:
            raise ValueError("it has no writer with an image")
        for name, inputs, labels in found:
            if labels.dtype.kind not in "iu" or labels.shape != inputs.shape[:1]:
                raise ValueError(f"{len(inputs)} images and {labels.shape} labels of {name}")
            if not 0 <= labels.min() <= labels.max() < FEMNIST_CLASSES:
                raise ValueError(f"labels {labels.min()} to {labels.max()} of {name}")
            if not (inputs >= 0).all() or not (inputs <= 1).all():
                raise ValueError(f"pixels of {name} beyond 0 to 1")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{file}: expected {{"user_data": {{writer: {{"x": [[784 numbers], ...], "y": [0..'
            f"{FEMNIST_CLASSES - 1}, ...]}}}}}}: {error}"
        ) from error
    return [(name, inputs, labels.astype(np.int64)) for name, inputs, labels in found]
