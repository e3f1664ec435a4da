"""How uneven a partition is, by hand and by its formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from clients import partition
from tests.labels import Ints, requests


def test_summary_by_hand() -> None:
    labels = np.array([0, 0, 1, 1], dtype=np.int64)
    apart = partition.summary(labels, [np.array([0, 1]), np.array([2, 3])], 3)
    entries = np.stack([apart.clients, apart.labels, apart.counts])
    np.testing.assert_array_equal(entries, [[0, 1], [0, 1], [2, 2]])
    np.testing.assert_array_equal(apart.sizes, [2, 2])
    assert apart.mean_emd == 1.0  # |1 - 1/2| + |0 - 1/2|
    assert apart.mean_effective_classes == 1.0
    mixed = partition.summary(labels, [np.array([0, 2]), np.array([1, 3])], 3)
    assert mixed.mean_emd == 0.0
    assert mixed.mean_effective_classes == pytest.approx(2.0, rel=1e-15)


def test_summary_refuses_a_client_without_examples() -> None:
    with pytest.raises(ValueError, match="client 1 has no examples"):
        partition.summary(np.zeros(2, dtype=np.int64), [np.array([0, 1]), np.array([], int)], 1)


@settings(max_examples=60, deadline=None)
@given(request_=requests())
def test_summary_is_what_its_formulas_say(request_: tuple[Ints, int, int]) -> None:
    labels, num_clients, seed = request_
    rng = np.random.default_rng(seed)
    parts = partition.dirichlet_per_client(labels, num_clients, rng, dirichlet_concentration=1.0)
    found = partition.summary(labels, parts, 21)
    counts = np.stack([np.bincount(labels[part], minlength=21) for part in parts])
    shares, overall = counts / counts.sum(1)[:, None], np.bincount(labels) / len(labels)
    logs = np.log(np.where(shares > 0, shares, 1.0))
    emd = np.abs(shares[:, : len(overall)] - overall).sum(1).mean()
    assert found.mean_emd == pytest.approx(emd, abs=1e-12)
    effective = np.exp(-(shares * logs).sum(1)).mean()
    assert found.mean_effective_classes == pytest.approx(effective, rel=1e-12)
    np.testing.assert_array_equal(found.sizes, counts.sum(1))
