"""Who owns which example, as two flat arrays: a client costs bytes, not an object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)  # eq=False: arrays have no truth value
class Partition(Sequence[Indices]):
    """The examples of each of K clients; reads like a list of K index arrays.

    At 4 examples a client it takes 24 bytes of memory for each, where a list of arrays was measured
    to take 260, and is pickled as two buffers: workers can share it.

    Attributes:
        indices: [M], int32 or int64: the examples of client 0, then those of client 1, ...
        offsets: [K + 1], int64, from 0 to M, not falling: client k has indices[o[k] : o[k + 1]].
    """

    indices: npt.NDArray[np.signedinteger[Any]]
    offsets: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.indices.ndim != 1 or self.offsets.ndim != 1 or not len(self.offsets):
            raise ValueError(
                f"indices and offsets have shapes {self.indices.shape} and {self.offsets.shape}, "
                "expected [M] and [K + 1]"
            )
        ends = (int(self.offsets[0]), int(self.offsets[-1]))
        if ends != (0, len(self.indices)) or (np.diff(self.offsets) < 0).any():
            raise ValueError(
                f"offsets run from {ends[0]} to {ends[1]}, expected from 0 to "
                f"{len(self.indices)} without falling"
            )

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Number of examples of each client [K]."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> npt.NDArray[np.int64]:
        """Client of each of `indices` [M]."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, client_id: int) -> Indices: ...
    @overload
    def __getitem__(self, client_id: slice) -> list[Indices]: ...
    def __getitem__(self, client_id: int | slice) -> Indices | list[Indices]:
        if isinstance(client_id, slice):
            return [self[k] for k in range(len(self))[client_id]]
        if not -len(self) <= client_id < len(self):
            raise IndexError(f"client {client_id}: expected 0..{len(self) - 1}")
        k = client_id % len(self)
        # Always a copy: who shuffles the indices of a client must not change the partition.
        return self.indices[self.offsets[k] : self.offsets[k + 1]].astype(np.int64)


def by_owner(order: Indices, owners: npt.NDArray[np.int32], num_clients: int) -> Partition:
    """Give example order[i] to client owners[i].

    Args:
        order: [n], n > 0, none twice.
        owners: [n], in 0..K - 1.
        num_clients: K.

    Returns:
        The partition, each client's indices sorted.
    """
    # Owner and example in one number: a third of the time of a stable argsort of owners.
    base = np.int64(order.max() + 1)
    keys = owners * base + order
    keys.sort()
    keys %= base
    return Partition(_compact(keys), _offsets(np.bincount(owners, minlength=num_clients)))


def as_partition(parts: Sequence[Indices]) -> Partition:
    """Put index arrays one behind the other.

    Args:
        parts: One array of indices for each client; a `Partition` is returned as it is.

    Returns:
        The partition, indices in the order given.
    """
    if isinstance(parts, Partition):
        return parts
    indices = np.concatenate([np.empty(0, dtype=np.int64), *parts])
    return Partition(_compact(indices), _offsets(np.array([len(part) for part in parts])))


def cut_short(partition: Partition, keeps: npt.NDArray[np.bool_]) -> Partition:
    """Leave examples out.

    Args:
        partition: stays as it is.
        keeps: [M], whether each of its indices stays.

    Returns:
        The partition of what is left, in the same order.
    """
    sizes = np.bincount(partition.owners[keeps], minlength=len(partition))
    return Partition(partition.indices[keeps], _offsets(sizes))


def _compact(indices: Indices) -> npt.NDArray[np.signedinteger[Any]]:
    """Take half the memory where it suffices: below 2,147,483,648 examples."""
    bounds = np.iinfo(np.int32)
    fits = not len(indices) or (bounds.min <= indices.min() and indices.max() <= bounds.max)
    return indices.astype(np.int32 if fits else np.int64)


def _offsets(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
