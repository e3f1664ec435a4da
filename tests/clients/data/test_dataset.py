"""Data sets: what a Dataset accepts, how it is cut down and normalised."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from clients import data
from tests.datasets import make
from tests.places import ROOT

# --- Dataset ---


def test_dataset_keeps_its_dtype_and_knows_its_shape() -> None:
    dataset = make()
    assert len(dataset) == 6
    assert dataset.task.input_shape == (2, 3, 2)
    assert dataset.inputs.dtype == np.uint8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": np.zeros((6, 4), np.uint8)}, r"toy: inputs has shape \(6, 4\)"),
        ({"inputs": np.zeros((6, 2, 3, 2))}, "toy: inputs has dtype float64"),
        ({"inputs": np.full((6, 2, 3, 2), np.nan, np.float32)}, "toy: inputs holds NaN"),
        ({"labels": np.zeros(5, np.int64)}, r"toy: labels has shape \(5,\), expected \(6,\)"),
        ({"labels": np.zeros(6, np.int32)}, "toy: labels has dtype int32, expected int64"),
        ({"labels": np.full(6, 3)}, r"toy: labels lie in 3\.\.3, expected 0\.\.2"),
        ({"labels": np.full(6, -1)}, r"toy: labels lie in -1\.\.-1, expected 0\.\.2"),
        ({"num_classes": 0}, "toy: num_classes=0, expected at least 1"),
        ({"mean": (0.5,)}, r"toy: mean=\(0.5,\), expected one value per channel \(2\)"),
        ({"mean": (0.5, np.inf)}, "toy: mean=.*expected finite"),
        ({"std": (0.2, 0.0)}, r"toy: std=\(0.2, 0.0\), expected > 0"),
        ({"scale": 0.0}, "toy: scale=0.0, expected a finite number > 0"),
    ],
)
def test_dataset_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_nobody_can_change_it_for_others() -> None:
    """A partition that sorted its labels, or a trainer that relabelled, did so for all clients."""
    inputs = np.zeros((6, 2, 3, 2), np.uint8)
    dataset = make(inputs=inputs)
    for array in (dataset.inputs, dataset.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    assert np.shares_memory(dataset.inputs, inputs)
    inputs[0] = 1  # whose it was


def test_subset_copies() -> None:
    dataset = make()
    part = data.subset(dataset, np.array([4, 1]))
    np.testing.assert_array_equal(part.inputs, dataset.inputs[[4, 1]])
    assert part.labels.tolist() == [1, 1]
    assert part.inputs.dtype == np.uint8
    assert not np.shares_memory(part.inputs, dataset.inputs)
    assert not np.shares_memory(part.labels, dataset.labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_normalised_is_what_the_formula_says(dtype: type) -> None:
    """Against float64, within 4 roundings (gain, product, shift, difference) of a float32.

    The largest product is 255/255/0.2 = 5, so a rounding is at most 5 * 2^-24 = 3e-7.
    """
    rng = np.random.default_rng(0)
    images: npt.NDArray[Any] = rng.integers(0, 256, (50, 2, 5, 4)).astype(dtype)
    images[0], images[1] = 0, 255
    dataset = make(inputs=images, labels=np.zeros(50, np.int64))
    indices = rng.permutation(50)[:20]
    mean, std = np.array(dataset.mean)[:, None, None], np.array(dataset.std)[:, None, None]
    expected = (images[indices].astype(np.float64) / 255 - mean) / std
    found = data.normalised(dataset, indices)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=4 * 5 * 2**-24)


def test_normalised_is_fresh_writable_and_contiguous_even_from_a_read_only_view() -> None:
    # Channels last and frozen, as images may lie in shared memory; scale 1, mean 0, std 1 would let
    # a careless version hand out the store itself.
    store = np.ones((6, 3, 2, 2), np.float32)
    store.flags.writeable = False
    dataset = make(inputs=store.transpose(0, 3, 1, 2), scale=1.0, mean=(0.0, 0.0), std=(1.0, 1.0))
    batch = data.normalised(dataset, np.arange(6))
    assert batch.flags.c_contiguous
    assert batch.flags.writeable
    batch += 1
    assert (store == 1).all()


# --- the real files, where there are any ---


def test_importing_data_and_partition_imports_nothing_heavy() -> None:
    code = (
        "import sys, clients.data, clients.partition; "
        "print(*{'torch', 'ray', 'flwr', 'hydra', 'sklearn', 'PIL'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
