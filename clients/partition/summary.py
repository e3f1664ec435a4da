"""How unlike the clients of a partition are: what to show and to write down about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clients.partition.flat_partition import Indices, as_partition


@dataclass(frozen=True, eq=False)  # eq=False: arrays have no truth value
class PartitionSummary:
    """What to log about a partition.

    The table of clients by classes is kept without its zeros: a million clients of 4 examples have
    at most 4 million entries, whatever C is.

    Attributes:
        clients: [S], int32, the client of each entry; ascending.
        labels: [S], int32, the class of each entry; ascending for each client.
        counts: [S], int32, examples of that class at that client, > 0.
        sizes: [K], examples of each client.
        mean_emd: mean over clients of sum_y |p_k(y) - p(y)|, in [0, 2); 0 when every client has the
            class distribution p of all that is anybody's.
        mean_effective_classes: mean over clients of exp(entropy of p_k), in 1..C; 1 when every
            client has one class.
        owners: [K], whose examples each client has, as their file calls them; None: not said.
    """

    clients: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int64]
    mean_emd: float
    mean_effective_classes: float
    owners: Sequence[Sequence[str | int]] | None = None


def summary(
    labels: npt.NDArray[np.int64], parts: Sequence[Indices], num_classes: int
) -> PartitionSummary:
    """Measure how unlike the clients of a partition are.

    Args:
        labels: [n], in 0..num_classes - 1.
        parts: Indices into `labels` of each of K clients, none of them empty.
        num_classes: C.

    Returns:
        Counts, sizes and their two usual one-number summaries.

    Raises:
        ValueError: a client has no examples.

    Reference:
        Zhao and others 2018, arXiv:1806.00582 (the distance, there called EMD).
    """
    partition = as_partition(parts)
    sizes = partition.sizes
    if not sizes.all():
        raise ValueError(f"client {np.argmin(sizes)} has no examples, expected at least 1")
    cells = np.repeat(np.arange(len(sizes)) * num_classes, sizes)
    cells += labels[partition.indices]
    cells, counts = np.unique(cells, return_counts=True)
    clients, classes = np.divmod(cells, num_classes)
    overall = np.bincount(labels[partition.indices], minlength=num_classes)
    everything = len(partition.indices)
    shares = counts / sizes[clients]
    # What a client lacks of p is summed in whole numbers: exactly 0 where it lacks nothing.
    lacking = everything - np.bincount(clients, weights=overall[classes])
    distance = np.abs(shares - overall[classes] / everything)
    entropy = np.bincount(clients, weights=-shares * np.log(shares))
    return PartitionSummary(
        clients=clients.astype(np.int32),
        labels=classes.astype(np.int32),
        counts=counts.astype(np.int32),
        sizes=sizes,
        mean_emd=float((np.bincount(clients, weights=distance) + lacking / everything).mean()),
        mean_effective_classes=float(np.exp(entropy).mean()),
    )
