"""The type: indices of many clients in two arrays."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from clients import partition
from clients.partition.flat_partition import as_partition
from tests.labels import balanced


def test_a_partition_reads_like_a_list_of_arrays() -> None:
    arrays = [np.array([3, 1]), np.array([], dtype=np.int64), np.array([0, 2, 4])]
    parts = as_partition(arrays)
    assert len(parts) == 3
    assert [part.tolist() for part in parts] == [[3, 1], [], [0, 2, 4]]
    assert parts[-1].tolist() == parts[np.int64(2)].tolist() == [0, 2, 4]
    assert [part.tolist() for part in parts[1:]] == [[], [0, 2, 4]]
    assert parts.sizes.tolist() == [2, 0, 3]
    assert {part.dtype for part in parts} == {np.dtype(np.int64)}
    assert as_partition(parts) is parts
    for outside in (3, -4):
        with pytest.raises(IndexError, match=f"client {outside}: expected 0..2"):
            parts[outside]


@pytest.mark.parametrize("stored", [np.int32, np.int64])
def test_who_changes_a_clients_indices_changes_a_copy(stored: type) -> None:
    parts = partition.Partition(np.arange(4, dtype=stored), np.array([0, 2, 4]))
    parts[0][:] = 9
    assert parts[0].tolist() == [0, 1]


def test_indices_above_two_thousand_million_are_kept() -> None:
    parts = as_partition([np.array([2**31 - 1]), np.array([2**31])])
    assert parts.indices.dtype == np.int64
    assert [part.tolist() for part in parts] == [[2**31 - 1], [2**31]]
    assert as_partition([np.array([2**31 - 1])]).indices.dtype == np.int32


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([], "shapes"),
        ([[0, 4]], "shapes"),
        ([0, 3], "from 0 to 3, expected from 0 to 4"),
        ([1, 4], "from 1 to 4, expected from 0 to 4"),
        ([0, 3, 2, 4], "without falling"),
    ],
)
def test_offsets_that_are_none_are_refused(offsets: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        partition.Partition(np.arange(4), np.array(offsets, dtype=np.int64))


def test_a_client_costs_its_indices_and_one_offset() -> None:
    """4 examples of 4 bytes and an offset of 8."""
    parts = partition.iid(balanced(10, 4000), 10_000, np.random.default_rng(0))
    assert parts.indices.nbytes + parts.offsets.nbytes == 24 * 10_000 + 8
    assert len(pickle.dumps(parts)) < 24 * 10_000 + 1000
