"""Flower's partitioners as oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from clients import partition
from tests.labels import Ints, balanced, table

#
# Bits rarely can agree, because random numbers are drawn in another order, so distributions are
# compared over seeds: for each statistic the two means may differ by 4 standard errors of their
# difference. For equal laws that is exceeded once in 16,000 comparisons; there are 30 here,
# and seeds are fixed. That the test can tell is tested as well: a concentration off by a factor of
# 2 must exceed the same bound.

NUM_SEEDS = 40
LABELS = np.random.default_rng(0).permutation(balanced(10, 120))
STATISTICS = ("emd", "effective_classes", "classes", "smallest", "largest", "size_deviation")


@pytest.fixture(scope="module")
def flower() -> Iterator[Callable[[Any], Sequence[Ints]]]:
    """A function from one of Flower's partitioners to index arrays, without any network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_OFFLINE", "1")
        import datasets

        # Half of the time goes into hashes of what is selected, by which files would be named.
        patch.setattr(datasets.fingerprint, "update_fingerprint", lambda *parts: "none")
        data = datasets.Dataset.from_dict({"label": LABELS, "index": np.arange(len(LABELS))})

        def parts(partitioner: Any) -> Sequence[Ints]:
            partitioner.dataset = data
            own = map(partitioner.load_partition, range(partitioner.num_partitions))
            return [np.asarray(each["index"][:]) for each in own]

        yield parts


def statistics(parts: Sequence[Ints]) -> list[float]:
    found = partition.summary(LABELS, parts, 10)
    sizes = found.sizes
    return [
        found.mean_emd,
        found.mean_effective_classes,
        len(found.counts) / len(sizes),  # classes of a client
        float(sizes.min()),
        float(sizes.max()),
        float(sizes.std()),
    ]


def standard_errors_apart(ours: list[list[float]], theirs: list[list[float]]) -> dict[str, float]:
    """Distance of the means in standard errors; 0 where both are constant and equal."""
    a, b = np.array(ours), np.array(theirs)
    gap = np.abs(a.mean(axis=0) - b.mean(axis=0))
    error = np.sqrt((a.var(axis=0, ddof=1) + b.var(axis=0, ddof=1)) / NUM_SEEDS)
    # Means of equal constants differ by rounding: 1e-9 of a size of 100 is no disagreement.
    distance = np.where(gap < 1e-9, 0.0, gap / np.maximum(error, 1e-12))
    return dict(zip(STATISTICS, distance.tolist(), strict=True))


def over_seeds(make: Callable[[int], Sequence[Ints]]) -> list[list[float]]:
    return [statistics(make(seed)) for seed in range(NUM_SEEDS)]


def fresh(seed: int) -> np.random.Generator:
    """A stream that none of Flower's seeds 0..39 gives, or the two sides were not independent."""
    return np.random.default_rng(1000 + seed)


def assert_same_law(ours: Callable[[int], Sequence[Ints]], theirs: list[list[float]]) -> None:
    apart = standard_errors_apart(over_seeds(ours), theirs)
    assert max(apart.values()) < 4, apart


@pytest.mark.parametrize("balance", [pytest.param(False, marks=pytest.mark.slow), True])
def test_dirichlet_agrees_with_flower(
    flower: Callable[[Any], Sequence[Ints]], balance: bool
) -> None:
    from flwr_datasets.partitioner import DirichletPartitioner

    def ours(seed: int, concentration: float = 0.5) -> Sequence[Ints]:
        return partition.dirichlet(
            LABELS, 8, fresh(seed), dirichlet_concentration=concentration, balance=balance
        )

    theirs = over_seeds(
        lambda seed: flower(
            DirichletPartitioner(
                8, "label", 0.5, min_partition_size=1, self_balancing=balance, seed=seed
            )
        )
    )
    assert_same_law(ours, theirs)
    apart = standard_errors_apart(over_seeds(partial(ours, concentration=1.0)), theirs)
    assert apart["emd"] > 4
    assert apart["effective_classes"] > 4


def test_dirichlet_is_the_very_table_of_flower_for_the_same_seed(
    flower: Callable[[Any], Sequence[Ints]],
) -> None:
    """Without balancing both draw one Dirichlet vector per class first, so even the bits agree."""
    from flwr_datasets.partitioner import DirichletPartitioner

    for seed in range(5):
        rng = np.random.default_rng(seed)
        ours = partition.dirichlet(LABELS, 8, rng, dirichlet_concentration=0.5)
        theirs = flower(DirichletPartitioner(8, "label", 0.5, min_partition_size=1, seed=seed))
        np.testing.assert_array_equal(table(LABELS, ours), table(LABELS, theirs))


def test_dirichlet_per_client_agrees_with_flower(flower: Callable[[Any], Sequence[Ints]]) -> None:
    from flwr_datasets.partitioner import InnerDirichletPartitioner

    def ours(seed: int, concentration: float = 5.0) -> Sequence[Ints]:
        return partition.dirichlet_per_client(
            LABELS, 8, fresh(seed), dirichlet_concentration=concentration
        )

    # Flower wants the parameter of each class: ours, 5 in all, over 10 equally frequent classes.
    theirs = over_seeds(
        lambda seed: flower(InnerDirichletPartitioner([150] * 8, "label", 0.5, seed=seed))
    )
    assert_same_law(ours, theirs)
    apart = standard_errors_apart(over_seeds(partial(ours, concentration=10.0)), theirs)
    assert apart["emd"] > 4
    assert apart["effective_classes"] > 4


# pyarrow 25 about `datasets`' own call of its sort; nothing of ours passes there.
@pytest.mark.filterwarnings("ignore:Specifying null_placement in SortOptions:FutureWarning")
def test_shards_agree_with_flower(flower: Callable[[Any], Sequence[Ints]]) -> None:
    from flwr_datasets.partitioner import ShardPartitioner

    def ours(seed: int, shards: int = 2) -> Sequence[Ints]:
        return partition.shards(LABELS, 8, fresh(seed), shards_per_client=shards)

    theirs = over_seeds(
        lambda seed: flower(ShardPartitioner(8, "label", num_shards_per_partition=2, seed=seed))
    )
    assert_same_law(ours, theirs)
    assert standard_errors_apart(over_seeds(partial(ours, shards=3)), theirs)["emd"] > 4


def test_classes_per_client_agrees_with_flower(flower: Callable[[Any], Sequence[Ints]]) -> None:
    from flwr_datasets.partitioner import PathologicalPartitioner

    def ours(seed: int) -> Sequence[Ints]:
        return partition.classes_per_client(LABELS, 12, fresh(seed), classes=3)

    # 12 clients of 10 classes: with fewer clients than classes Flower leaves classes out, we never.
    theirs = over_seeds(
        lambda seed: flower(
            PathologicalPartitioner(12, "label", 3, "first-deterministic", seed=seed)
        )
    )
    assert_same_law(ours, theirs)


def test_iid_sizes_agree_with_flower(flower: Callable[[Any], Sequence[Ints]]) -> None:
    from flwr_datasets.partitioner import IidPartitioner

    ours = partition.iid(LABELS, 7, np.random.default_rng(0))
    theirs = flower(IidPartitioner(7))
    assert sorted(map(len, ours)) == sorted(map(len, theirs))
