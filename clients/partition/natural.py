"""The natural partition: whose each example is, as its file says; a client is a writer, a hospital.

Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018 (arXiv:1812.01097).
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from clients.partition.flat_partition import Partition, by_owner


def natural(
    labels: npt.NDArray[Any],
    num_clients: int,
    rng: np.random.Generator,
    *,
    owners: npt.NDArray[np.int64],
    grouped: bool = False,
    min_examples: Annotated[int, ">= 1"] = 1,
) -> Partition:
    """Natural partition: each client has the examples of one owner, or of several.

    Args:
        labels: [n], only their number matters.
        num_clients: K.
        rng: draws K of the owners where there are more, or deals them all out.
        owners: whose each example is [n].
        grouped: deal all owners out, so that each client has as many, or one more; False: K of
            them are clients, in their order, and what others have is not used.
        min_examples: whoever has fewer is left out, >= 1.

    Returns:
        Sorted indices of each of K clients.

    Raises:
        ValueError: fewer than K owners have so many examples.
    """
    if min_examples < 1:
        raise ValueError(f"min_examples={min_examples}, expected >= 1")
    _, places, counts = np.unique(owners, return_inverse=True, return_counts=True)
    there = np.flatnonzero(counts >= min_examples)
    if not len(there):
        raise ValueError(
            f"min_examples={min_examples}: who has most has {counts.max()} private "
            "examples, expected at most these"
        )
    if len(there) < num_clients:
        raise ValueError(
            f"clients.num_clients={num_clients}: {len(there)} owners have {min_examples} private "
            f"examples or more, when test and proxy set are drawn, expected at most {len(there)}"
        )
    drawn = rng.permutation(there)
    if not grouped:
        drawn = np.sort(drawn[:num_clients])
    client_of = np.full(len(counts), -1, dtype=np.int32)
    client_of[drawn] = np.arange(len(drawn)) % num_clients
    used = np.flatnonzero(client_of[places] >= 0)
    return by_owner(used, client_of[places[used]], num_clients)
