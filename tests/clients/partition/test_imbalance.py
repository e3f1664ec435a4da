"""Imbalance: partitions of which examples are left out, or are there twice, by hand."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients import partition
from tests.labels import Ints, balanced

IMBALANCED: dict[str, Callable[..., Any]] = {
    "long_tailed": partial(partition.long_tailed, ratio=20),
    "step_imbalance": partial(partition.step_imbalance, ratio=20),
    "missing_classes": partial(partition.missing_classes, missing=3),
    "duplicated": partial(partition.duplicated, share=0.3),
    "capped": partial(partition.capped, most=40),
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sizes_of(labels: Ints, parts: Any) -> list[int]:
    """Count the examples of each class that are anybody's."""
    return np.bincount(labels[np.concatenate(list(parts))], minlength=labels.max() + 1).tolist()


@pytest.mark.parametrize("name", IMBALANCED)
def test_each_client_has_of_what_the_other_partition_gave_it(name: str) -> None:
    labels, of = balanced(10, 60), partial(partition.dirichlet, dirichlet_concentration=0.5)
    before = of(labels, 6, rng())
    parts, again, other = (IMBALANCED[name](labels, 6, rng(seed), of=of) for seed in (0, 0, 1))
    assert isinstance(parts, partition.Partition)
    for own, was, same in zip(parts, before, again, strict=True):
        assert {*own.tolist()} <= {*was.tolist()}
        assert own.tolist() == sorted(own) == same.tolist()
    assert [own.tolist() for own in parts] != [own.tolist() for own in other]
    assert any(len(own) != len(was) for own, was in zip(parts, before, strict=True))


# --- fewer of some classes ---


def test_a_long_tail_by_hand() -> None:
    """100 of each of 3 classes and a ratio of 100: 100, 100 / 10, 100 / 100."""
    labels = rng(1).permutation(balanced(3, 100))
    parts = partition.long_tailed(labels, 4, rng(), of=partition.iid, ratio=100)
    assert sizes_of(labels, parts) == [100, 10, 1]
    found = partition.long_tailed(labels, 4, rng(), of=partition.iid, ratio=1000)
    assert sizes_of(labels, found) == [100, 3, 1]  # 3.16 is rounded down, .1 is 1 at least


def test_step_imbalance_by_hand() -> None:
    labels = rng(1).permutation(balanced(5, 40))
    parts = partition.step_imbalance(labels, 2, rng(), of=partition.iid, ratio=10)
    assert sizes_of(labels, parts) == [40, 40, 40, 4, 4]


def test_what_is_left_is_as_much_as_all_classes_allow_and_none_is_ahead() -> None:
    """Of 8, 100 and 100 examples at 4 : 2 : 1 there are 8, 4 and 2; at 1 : 2 : 4 (not reached),
    none; classes need not be numbered without gaps."""
    labels = np.repeat(np.array([2, 5, 9]), [8, 100, 100])
    parts = partition.long_tailed(labels, 2, rng(), of=partition.iid, ratio=4)
    assert [n for n in sizes_of(labels, parts) if n] == [8, 4, 2]
    few = np.repeat(np.array([0, 1, 2]), [100, 100, 3])
    parts = partition.long_tailed(few, 2, rng(), of=partition.iid, ratio=4)
    assert sizes_of(few, parts) == [12, 6, 3]
    steps = partition.step_imbalance(few, 2, rng(), of=partition.iid, ratio=4)
    assert sizes_of(few, steps) == [12, 12, 3]


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=8),
    ratio=st.floats(1, 1e4),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_class_has_less_than_its_share_or_nothing(
    sizes: list[int], ratio: float, seed: int
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    for name in ("long_tailed", "step_imbalance"):
        rule = getattr(partition, name)
        found = sizes_of(labels, rule(labels, 1, rng(seed), of=partition.iid, ratio=ratio))
        assert all(1 <= n <= size for n, size in zip(found, sizes, strict=True))
        assert found == sorted(found, reverse=True)
        assert found[0] / ratio <= found[-1] + 1


def test_a_ratio_of_one_leaves_what_even_classes_have() -> None:
    labels = balanced(4, 10)
    for rule in (partition.long_tailed, partition.step_imbalance):
        parts = rule(labels, 4, rng(), of=partition.iid, ratio=1)
        whole = partition.iid(labels, 4, rng())
        assert [own.tolist() for own in parts] == [own.tolist() for own in whole]


# --- classes that a client lacks ---


def test_each_client_lacks_so_many_classes_of_its_own() -> None:
    labels = rng(1).permutation(balanced(6, 200))
    of = partial(partition.dirichlet, dirichlet_concentration=1e9)  # 5 of each class for each
    parts = partition.missing_classes(labels, 40, rng(), of=of, missing=2)
    whole = of(labels, 40, rng())
    gone = []
    for own, was in zip(parts, whole, strict=True):
        lacks = {*range(6)} - {*labels[own].tolist()}
        assert len(lacks) == 2
        assert own.tolist() == [i for i in was.tolist() if labels[i] not in lacks]
        gone += sorted(lacks)
    assert min(gone.count(label) for label in range(6)) >= 4  # 13.3 +- 3 are to be expected
    same = partition.missing_classes(labels, 40, rng(), of=of, missing=0)
    assert [own.tolist() for own in same] == [own.tolist() for own in whole]


# --- examples that are there twice ---


def test_a_share_of_each_clients_examples_is_there_twice() -> None:
    labels = balanced(3, 25)
    parts = partition.duplicated(labels, 3, rng(), of=partition.iid, share=0.3)
    for own, was in zip(parts, partition.iid(labels, 3, rng()), strict=True):
        values, times = np.unique(own, return_counts=True)
        np.testing.assert_array_equal(values, was)
        assert (times == 2).sum() == 8  # 7.5, halves to even
        assert times.max() == 2
    twice = partition.duplicated(labels, 3, rng(), of=partition.iid, share=1.0)
    assert twice.sizes.tolist() == [50] * 3


def test_large_clients_are_capped_and_small_ones_left_alone() -> None:
    labels, of = balanced(4, 50), partial(partition.quantity_skew, dirichlet_concentration=0.5)
    before = of(labels, 5, rng())
    parts = partition.capped(labels, 5, rng(), of=of, most=30)
    assert parts.sizes.tolist() == before.sizes.clip(max=30).tolist()
    assert max(before.sizes) > 30 > min(before.sizes)


# --- what cannot be ---


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(partition.long_tailed, ratio=0.5), "ratio=0.5, expected >= 1"),
        (partial(partition.step_imbalance, ratio=float("nan")), "ratio=nan, expected >= 1"),
        (partial(partition.missing_classes, missing=4), r"missing=4, expected 0\.\.3: there are 4"),
        (partial(partition.missing_classes, missing=-1), r"missing=-1, expected 0\.\.3"),
        (partial(partition.duplicated, share=1.5), "share=1.5, expected a share"),
        (partial(partition.capped, most=0), "most=0, expected >= 1"),
    ],
)
def test_impossible_requests_are_named(call: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(balanced(4, 5), 2, rng(), of=partition.iid)


def test_a_client_that_is_left_with_nothing_is_refused_by_name() -> None:
    labels = balanced(4, 5)
    one = partial(partition.classes_per_client, classes=1)
    parts = partition.missing_classes(labels, 4, rng(), of=one, missing=3)
    assert not parts.sizes.all()
    with pytest.raises(ValueError, match=r"client \d has no examples, expected at least 1"):
        partition.summary(labels, parts, 4)


def test_clients_that_are_alike_are_so_whatever_nobody_has() -> None:
    """Distances are to the classes that anybody has, of which nobody's examples are none."""
    labels = np.array([0, 0, 1, 1, 1, 1])
    found = partition.summary(labels, [np.array([0, 2]), np.array([1, 3])], 2)
    assert found.mean_emd == 0.0
