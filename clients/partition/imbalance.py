"""Imbalance: partitions made of another one, of which examples are left out, or are there twice.

Each takes a partition, `of`, and cuts by it first; what is then left out is nobody's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt

from clients.partition.flat_partition import Indices, Partition, as_partition, cut_short

Labels = npt.NDArray[np.int64]
Cut = Callable[[Labels, int, np.random.Generator], Sequence[Indices]]
"""A partition, all its numbers bound."""

ROUNDING = 1e-9
"""By how much a number of examples may be below a whole one and count as it."""


def long_tailed(
    labels: Labels,
    num_clients: int,
    rng: np.random.Generator,
    *,
    of: Cut,
    ratio: Annotated[float, ">= 1"],
) -> Partition:
    """Long-tailed classes: of class c of C are left n_c ~ mu^(c / (C - 1)), mu = 1 / ratio.

    Classes are those there are, in ascending order. n_0 is the largest number for which all have
    enough, the others are rounded down, and are 1 at least.

    Args:
        labels: [n].
        num_clients: K.
        rng: draws for `of`, and then which examples stay, whosever they are.
        of: cuts all examples first.
        ratio: imbalance ratio n_0 / n_(C - 1), >= 1.

    Returns:
        Indices of each of K clients; one of few examples may be left without any.

    Raises:
        ValueError: `ratio` is out of range, or what `of` raises.

    Reference:
        Cao, Wei, Gaidon, Arechiga, Ma, "Learning Imbalanced Datasets with Label-Distribution-Aware
        Margin Loss", NeurIPS 2019, sec. 4 (long-tailed imbalance), after Cui et al., CVPR 2019.
    """
    _check_ratio(ratio)
    last = max(1, len(np.unique(labels)) - 1)
    return _thinned(labels, num_clients, rng, of, lambda c: float(ratio) ** (-c / last))


def step_imbalance(
    labels: Labels,
    num_clients: int,
    rng: np.random.Generator,
    *,
    of: Cut,
    ratio: Annotated[float, ">= 1"],
) -> Partition:
    """Step imbalance: of the last half of the classes is left 1 / ratio of what others have.

    Of an odd number C of classes these are (C - 1) / 2. Numbers are made as in `long_tailed`.

    Args:
        labels: [n].
        num_clients: K.
        rng: draws for `of`, and then which examples stay, whosever they are.
        of: cuts all examples first.
        ratio: imbalance ratio, >= 1.

    Returns:
        Indices of each of K clients; one of few examples may be left without any.

    Raises:
        ValueError: `ratio` is out of range, or what `of` raises.

    Reference:
        Buda, Maki, Mazurowski, "A Systematic Study of the Class Imbalance Problem in Convolutional
        Neural Networks", Neural Networks 106 (2018), sec. 3.1; Cao and others 2019, sec. 4.
    """
    _check_ratio(ratio)
    first = -(-len(np.unique(labels)) // 2)
    return _thinned(labels, num_clients, rng, of, lambda c: np.where(c < first, 1, 1 / ratio))


def missing_classes(
    labels: Labels,
    num_clients: int,
    rng: np.random.Generator,
    *,
    of: Cut,
    missing: Annotated[int, ">= 0"],
) -> Partition:
    """Missing classes: each client lacks so many, drawn for itself, of those it may have had.

    Args:
        labels: [n], C different ones.
        num_clients: K.
        rng: draws for `of`, and then the classes, any alike.
        of: cuts all examples first.
        missing: classes that each client lacks, in 0..C - 1.

    Returns:
        Indices of each of K clients.

    Raises:
        ValueError: `missing` is out of range, or what `of` raises.
    """
    present, kinds = np.unique(labels, return_inverse=True)
    if not 0 <= missing < len(present):
        raise ValueError(
            f"missing={missing}, expected 0..{len(present) - 1}: there are {len(present)} classes"
        )
    partition = as_partition(of(labels, num_clients, rng))
    lacks = np.tile(np.arange(len(present)) < missing, (num_clients, 1))
    lacks = rng.permuted(lacks, axis=1)
    return cut_short(partition, ~lacks[partition.owners, kinds[partition.indices]])


def duplicated(
    labels: Labels,
    num_clients: int,
    rng: np.random.Generator,
    *,
    of: Cut,
    share: Annotated[float, "in [0, 1]"],
) -> Partition:
    """Duplicated examples: a share of each client's is there twice.

    Args:
        labels: [n].
        num_clients: K.
        rng: draws for `of`, and then which examples.
        of: cuts all examples first.
        share: of a client's examples, in [0, 1]; their number is rounded, halves to even.

    Returns:
        Sorted indices of each of K clients, some twice.

    Raises:
        ValueError: `share` is out of range, or what `of` raises.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}, expected a share in [0, 1]")
    partition = as_partition(of(labels, num_clients, rng))
    return as_partition(
        [
            np.sort(np.concatenate([own, rng.permutation(own)[: round(share * len(own))]]))
            for own in partition
        ]
    )


def capped(
    labels: Labels,
    num_clients: int,
    rng: np.random.Generator,
    *,
    of: Cut,
    most: Annotated[int, ">= 1"],
) -> Partition:
    """Capped sizes: of each client's examples at most so many are used, drawn for itself.

    Args:
        labels: [n].
        num_clients: K.
        rng: draws for `of`, and then which examples.
        of: cuts all examples first.
        most: examples of a client, >= 1.

    Returns:
        Sorted indices of each of K clients.

    Raises:
        ValueError: `most` is out of range, or what `of` raises.
    """
    if most < 1:
        raise ValueError(f"most={most}, expected >= 1")
    partition = as_partition(of(labels, num_clients, rng))
    return as_partition([np.sort(rng.permutation(own)[:most]) for own in partition])


def _thinned(
    labels: Labels,
    num_clients: int,
    rng: np.random.Generator,
    of: Cut,
    profile: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]],
) -> Partition:
    """Leave examples of classes 0, 1, ... in proportion to a profile, as many as there are."""
    partition = as_partition(of(labels, num_clients, rng))
    sizes = np.unique(labels, return_counts=True)[1]
    shares = profile(np.arange(len(sizes)))
    most = (sizes / shares).min()
    left = np.floor(most * shares + ROUNDING).astype(np.int64).clip(min=1)
    keeps = np.zeros(len(labels), dtype=np.bool_)
    for label, number in zip(np.unique(labels), left, strict=True):
        keeps[rng.permutation(np.flatnonzero(labels == label))[:number]] = True
    return cut_short(partition, keeps[partition.indices])


def _check_ratio(ratio: float) -> None:
    if not 1 <= ratio < np.inf:
        raise ValueError(f"ratio={ratio}, expected >= 1 and finite")
