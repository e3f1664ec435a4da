"""Places are filled one by one."""

from __future__ import annotations

import numpy as np

from clients.partition.counts import fill_places
from tests.labels import Ints


def test_places_are_filled_one_by_one() -> None:
    """Blocks of places give what a loop over places gives, classes that run out included."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        class_sizes = rng.integers(1, 1500, 5)
        clients = rng.permutation(np.arange(class_sizes.sum()) % 60)
        priors = rng.dirichlet(np.full(5, 10.0 ** -(seed % 5)), size=60)
        left, counts = class_sizes.copy(), np.zeros((60, 5), dtype=np.int64)
        tables: dict[int, Ints] = {}
        uniforms = 1 - np.random.default_rng(seed).random(len(clients))
        for client, uniform in zip(clients, uniforms, strict=True):
            if client not in tables:
                shares = priors[client] * (left > 0)
                tables[client] = np.cumsum(shares if shares.any() else left)
            drawn = np.searchsorted(tables[client] / tables[client][-1], uniform)
            counts[client, drawn] += 1
            left[drawn] -= 1
            if left[drawn] == 0:
                tables.clear()
        filled = fill_places(clients, priors, class_sizes, np.random.default_rng(seed))
        np.testing.assert_array_equal(filled, counts)
