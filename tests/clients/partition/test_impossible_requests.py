"""Partitions that cannot be: each is refused with key, value and range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest

from clients import partition
from tests.labels import Ints, balanced

Partition = Callable[..., Sequence[Ints]]
IMPOSSIBLE: list[tuple[Partition, int, str]] = [
    (
        partition.iid,
        50,
        "num_clients=50 but only 20 examples: every client needs at least 1",
    ),
    (partition.iid, 0, "num_clients=0, expected at least 1"),
    (
        partial(partition.dirichlet, dirichlet_concentration=0.0),
        2,
        "dirichlet_concentration=0.0, expected a finite number > 0",
    ),
    (
        partial(partition.dirichlet, dirichlet_concentration=1.0, min_examples=11),
        2,
        "num_clients=2 but only 20 examples: every client needs at least 11",
    ),
    (
        partial(partition.dirichlet, dirichlet_concentration=1.0, min_examples=0),
        2,
        "min_examples=0, expected at least 1",
    ),
    (
        partial(partition.dirichlet, dirichlet_concentration=1.0, max_redraws=-1),
        2,
        "max_redraws=-1, expected at least 0",
    ),
    (
        partial(partition.dirichlet, dirichlet_concentration=1e-9, max_redraws=7),
        10,
        "no draw out of 8 gave each of num_clients=10 clients min_examples=1",
    ),
    (
        partial(partition.dirichlet_per_client, dirichlet_concentration=float("nan")),
        2,
        "dirichlet_concentration=nan",
    ),
    (
        partial(partition.quantity_skew, dirichlet_concentration=-1.0),
        2,
        "dirichlet_concentration=-1.0",
    ),
    (
        partial(partition.shards, shards_per_client=5),
        5,
        "shards_per_client=5, expected 1..4 for num_clients=5 and 20 examples",
    ),
    (partial(partition.shards, shards_per_client=0), 5, "shards_per_client=0, expected 1..4"),
    (partial(partition.power_law, spread=-1.0), 2, "spread=-1.0, expected a finite number >= 0"),
    (
        partial(partition.power_law, classes=4, min_examples=2),
        4,
        "a class of 5 examples is owned by 4 clients, expected at most 1",
    ),
    (
        partial(partition.classes_per_client, classes=5),
        4,
        "classes=5, expected 1..4, the classes there are",
    ),
    (
        partial(partition.classes_per_client, classes=1),
        3,
        "own at most 3 of the 4 classes",
    ),
    (
        partial(partition.classes_per_client, classes=4),
        10,
        "lower classes=4, as some class has more owners than examples",
    ),
]


@pytest.mark.parametrize(("call", "num_clients", "message"), IMPOSSIBLE)
def test_impossible_requests_name_key_value_and_range(
    call: Partition, num_clients: int, message: str
) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the message is compared literally
        call(balanced(4, 5), num_clients, np.random.default_rng(0))
    assert message in str(raised.value)
