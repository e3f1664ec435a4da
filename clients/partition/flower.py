"""Partitioners of Flower's package `flwr_datasets`, as they are."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt

from clients.partition.flat_partition import Partition, as_partition


def from_partitioner(
    labels: npt.NDArray[np.int64],
    num_clients: int,
    rng: np.random.Generator,
    *,
    partitioner: Any,
) -> Partition:
    """Partition as one of Flower's partitioners does, which has a seed of its own.

    Args:
        labels: [n], its column "label".
        num_clients: K, its number of partitions.
        rng: not used; every partition is called alike.
        partitioner: a `flwr_datasets.partitioner.Partitioner` without a data set; not changed.

    Returns:
        Sorted indices of each of K clients; what it gives to none is nobody's.

    Raises:
        ValueError: it has another number of partitions, cannot cut these labels, or the package
            `datasets` is not installed.
    """
    try:
        from datasets import Dataset
    except ImportError as error:
        raise ValueError(
            "partition=flower wants packages: pip install 'stillhouse[datasets]'"
        ) from error
    own = deepcopy(partitioner)  # one takes a data set only once
    try:
        own.dataset = Dataset.from_dict({"label": labels, "index": np.arange(len(labels))})
        num_partitions = own.num_partitions
        parts = [np.sort(own.load_partition(k)["index"][:]) for k in range(num_partitions)]
    except Exception as error:  # anyone's code
        raise ValueError(f"partition.partitioner: {type(error).__name__}: {error}") from error
    if num_partitions != num_clients:
        raise ValueError(
            f"partition.partitioner.num_partitions={num_partitions}, expected {num_clients}, "
            "clients.num_clients"
        )
    return as_partition([part.astype(np.int64) for part in parts])
