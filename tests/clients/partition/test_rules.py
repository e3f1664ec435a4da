"""Rules of partition: properties that hold for every request, and hand-made answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients import partition
from tests.labels import Ints, balanced, requests, table

Partition = Callable[..., Sequence[Ints]]
# Every partition but from_file, with numbers that can be met by the requests drawn below.
PARTITIONS: dict[str, Partition] = {
    "iid": partition.iid,
    "dirichlet": partial(partition.dirichlet, dirichlet_concentration=0.5),
    "dirichlet_balanced": partial(
        partition.dirichlet, dirichlet_concentration=0.5, balance=True, min_examples=2
    ),
    "dirichlet_per_client": partial(partition.dirichlet_per_client, dirichlet_concentration=0.5),
    "shards": partition.shards,
    "classes_per_client": partial(partition.classes_per_client, classes=2),
    "quantity_skew": partial(partition.quantity_skew, dirichlet_concentration=2.0, min_examples=2),
    "power_law": partial(partition.power_law, min_examples=1),
}
every_partition = pytest.mark.parametrize("name", PARTITIONS)


@every_partition
@settings(max_examples=60, deadline=None)
@given(request_=requests())
def test_every_index_is_owned_exactly_once(name: str, request_: tuple[Ints, int, int]) -> None:
    labels, num_clients, seed = request_
    parts = PARTITIONS[name](labels, num_clients, np.random.default_rng(seed))
    assert len(parts) == num_clients
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    for part in parts:
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
    least = 2 if name in ("dirichlet_balanced", "quantity_skew") else 1
    assert min(len(part) for part in parts) >= least


@every_partition
def test_the_same_seed_gives_the_same_parts_and_another_does_not(name: str) -> None:
    labels = balanced()
    first, again, other = (
        PARTITIONS[name](labels, 10, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@every_partition
def test_the_order_of_the_input_does_not_matter(name: str) -> None:
    """Who gets how many of which class depends on class sizes and the generator alone."""
    labels = balanced()
    mixed = np.random.default_rng(0).permutation(labels)
    if name in ("iid", "quantity_skew"):  # they never look at labels: only sizes can be compared
        sizes = [
            [len(p) for p in PARTITIONS[name](y, 10, np.random.default_rng(1))]
            for y in (labels, mixed)
        ]
        assert sizes[0] == sizes[1]
        return
    tables = [table(y, PARTITIONS[name](y, 10, np.random.default_rng(1))) for y in (labels, mixed)]
    np.testing.assert_array_equal(tables[0], tables[1])


@every_partition
def test_examples_are_not_dealt_out_in_their_order(name: str) -> None:
    """Of one class of 1,000 no client may get a contiguous run.

    Of the C(1000, m) sets of m examples only 1001 - m are runs: under 1e-100 of them where each of
    the two clients has 100 or more.
    """
    labels, options = np.zeros(1000, dtype=np.int64), dict[str, int]()
    if name == "classes_per_client":
        options = {"classes": 1}
    elif name == "power_law":
        options = {"classes": 1, "spread": 0}
    elif name == "shards":
        options = {"shards_per_client": 1}
    elif name in ("dirichlet", "dirichlet_balanced", "quantity_skew"):
        options = {"min_examples": 100}
    for part in PARTITIONS[name](labels, 2, np.random.default_rng(0), **options):
        assert len(part) >= 100
        assert part[-1] - part[0] >= len(part)


@settings(max_examples=60, deadline=None)
@given(
    exponent=st.integers(-300, 300),
    num_clients=st.integers(1, 12),
    balance=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_extreme_concentrations_end_in_a_partition_or_a_clear_error(
    exponent: int, num_clients: int, balance: bool, seed: int
) -> None:
    """Down to 1e-300 a prior is all on one class, where a careless rescaling divides 0 by 0."""
    labels, concentration = balanced(4, 25), 10.0**exponent
    calls: list[Partition] = [
        partial(partition.dirichlet, balance=balance, max_redraws=20),
        partial(partition.quantity_skew, max_redraws=20),
        partial(partition.dirichlet_per_client),  # sizes are fixed: it always succeeds
    ]
    failures = []
    for call in calls:
        rng = np.random.default_rng(seed)
        try:
            parts = call(labels, num_clients, rng, dirichlet_concentration=concentration)
        except ValueError as error:
            failures.append(str(error))
            continue
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(100))
        assert min(len(part) for part in parts) >= 1
    assert len(failures) <= 2
    assert all(failure.startswith("no draw out of 21 gave each") for failure in failures)


def test_iid_sizes_differ_by_at_most_one() -> None:
    parts = partition.iid(balanced(1, 103), 10, np.random.default_rng(0))
    assert sorted(len(part) for part in parts) == [10] * 7 + [11] * 3


def test_large_concentration_is_even_to_the_rounding() -> None:
    """At 1e9 shares deviate by about 1e-5 of themselves: cuts of 100 move by 1 at most."""
    labels, rng = balanced(), np.random.default_rng(0)
    counts = table(labels, partition.dirichlet(labels, 10, rng, dirichlet_concentration=1e9))
    assert np.abs(counts - 10).max() <= 1
    parts = partition.quantity_skew(labels, 10, rng, dirichlet_concentration=1e9)
    assert max(abs(len(part) - 100) for part in parts) <= 1


def test_small_concentration_gives_nearly_one_class_per_client() -> None:
    labels, rng = balanced(4, 100), np.random.default_rng(0)
    parts = partition.dirichlet_per_client(labels, 40, rng, dirichlet_concentration=1e-3)
    # A client mixes classes only when one runs out, at most 3 times before the last is left.
    assert (table(labels, parts) > 0).sum(axis=1).max() <= 4
    assert partition.summary(labels, parts, 4).mean_effective_classes < 1.5
    assert [len(part) for part in parts] == [10] * 40


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_balance_stops_giving_to_full_clients(seed: int) -> None:
    """Nobody gets more after n/K = 100 examples, so nobody ends above 99 + one class of 100."""
    parts = partition.dirichlet(
        balanced(),
        10,
        np.random.default_rng(seed),
        dirichlet_concentration=0.1,
        balance=True,
    )
    assert max(len(part) for part in parts) <= 199


def test_one_shard_each_of_two_classes() -> None:
    labels = np.array([1, 0, 1, 0, 1, 0], dtype=np.int64)
    parts = partition.shards(labels, 2, np.random.default_rng(0), shards_per_client=1)
    assert sorted(part.tolist() for part in parts) == [[0, 2, 4], [1, 3, 5]]


def test_shards_use_every_example_when_they_do_not_divide() -> None:
    parts = partition.shards(balanced(3, 7), 5, np.random.default_rng(0))
    assert sum(len(part) for part in parts) == 21
    assert {len(part) for part in parts} <= {4, 5, 6}  # two shards of 2 or 3 each


def test_one_class_per_client_is_the_class_of_its_number() -> None:
    labels = np.random.default_rng(1).permutation(balanced(3, 4))
    parts = partition.classes_per_client(labels, 6, np.random.default_rng(0), classes=1)
    expected = np.tile(2 * np.eye(3, dtype=np.int64), (2, 1))
    np.testing.assert_array_equal(table(labels, parts), expected)


@settings(max_examples=60, deadline=None)
@given(
    num_clients=st.integers(1, 12),
    classes=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_classes_per_client_gives_exactly_that_many_and_leaves_none_out(
    num_clients: int, classes: int, seed: int
) -> None:
    labels, rng = balanced(6, 12), np.random.default_rng(seed)
    if num_clients * classes < 6:
        with pytest.raises(ValueError, match=r"num_clients \* classes >= 6"):
            partition.classes_per_client(labels, num_clients, rng, classes=classes)
        return
    counts = table(labels, partition.classes_per_client(labels, num_clients, rng, classes=classes))
    assert ((counts > 0).sum(axis=1) == classes).all()
    assert (counts[np.arange(num_clients), np.arange(num_clients) % 6] > 0).all()
    np.testing.assert_array_equal(counts.sum(axis=0), np.full(6, 12))
    for column in counts.T:  # owners share evenly
        assert np.ptp(column[column > 0]) <= 1


RECORDED: dict[str, tuple[Partition, str]] = {
    "iid": (partition.iid, "eefa0d58273d177e"),
    "dirichlet": (
        partial(partition.dirichlet, dirichlet_concentration=0.5),
        "cb0e26fad96e9df1",
    ),
    "dirichlet_balanced": (
        partial(partition.dirichlet, dirichlet_concentration=0.5, balance=True, min_examples=2),
        "fd00f2175b950161",
    ),
    "dirichlet_per_client": (
        partial(partition.dirichlet_per_client, dirichlet_concentration=0.5),
        "5ff95a9fd6188379",
    ),
    "dirichlet_per_client_skewed": (  # priors that end up all on classes that have run out
        partial(partition.dirichlet_per_client, dirichlet_concentration=1e-3),
        "6c2bc8f4effa7f32",
    ),
    "dirichlet_per_client_even": (
        partial(partition.dirichlet_per_client, dirichlet_concentration=1e9),
        "873613d1c7eda5a9",
    ),
    "shards": (partition.shards, "43f928e49da7af63"),
    "shards_7": (partial(partition.shards, shards_per_client=7), "7aa1c4266d6878a6"),
    "classes_per_client": (partition.classes_per_client, "02ed40930a73eb63"),
    "classes_per_client_3": (
        partial(partition.classes_per_client, classes=3),
        "8cf714c9cc23c492",
    ),
    "classes_per_client_4": (
        partial(partition.classes_per_client, classes=4),
        "35339707bd0f1960",
    ),
    "quantity_skew": (
        partial(partition.quantity_skew, dirichlet_concentration=2.0),
        "f409fa994424024b",
    ),
}
"""What the first version of each rule, which looped over clients and kept a list of arrays, gave:
published results depend on who has which example."""


def test_a_power_law_by_hand() -> None:
    """Without spread two owners of 100 have half each; with much of it one has what is left."""
    labels = np.repeat(np.arange(2), 100)
    even = partition.power_law(labels, 4, np.random.default_rng(0), classes=1, spread=0.0)
    assert table(labels, even).tolist() == [[50, 0], [0, 50], [50, 0], [0, 50]]
    steep = partition.power_law(labels, 4, np.random.default_rng(0), classes=1, spread=1e3)
    assert sorted(len(own) for own in steep) == [5, 5, 95, 95]
    many = partition.power_law(np.repeat(np.arange(10), 6000), 1000, np.random.default_rng(0))
    sizes = np.array([len(own) for own in many])
    assert (sizes >= 10).all()
    assert (table(np.repeat(np.arange(10), 6000), many) > 0).sum(1).tolist() == [2] * 1000
    assert np.sort(sizes)[-200:].sum() > 0.6 * sizes.sum()  # a fifth of the clients has most


@pytest.mark.parametrize("name", RECORDED)
def test_who_has_which_example_stays_as_it_was(name: str) -> None:
    rule, expected = RECORDED[name]
    sizes = [700, 301, 450, 549]
    labels = np.random.default_rng(1).permutation(np.repeat(np.array([0, 2, 5, 9]), sizes))
    digest = hashlib.sha256()
    for seed in (0, 1, 2):
        for num_clients in (3, 40):
            for part in rule(labels, num_clients, np.random.default_rng(seed)):
                digest.update(np.int64(len(part)).tobytes() + part.tobytes())
    assert digest.hexdigest()[:16] == expected
