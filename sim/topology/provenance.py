"""Whose data and parameters can have reached whom, after the rounds that there have been."""

from collections.abc import Iterable, Mapping
from typing import Any, Self

import networkx as nx
import numpy as np
import numpy.typing as npt
from scipy import sparse

from sim.topology.mixing import adjacency

Bits = npt.NDArray[np.uint8]

GATHERED_BYTES = 2**25
"""How much is gathered at once: 1,000 peers who all hear of each other would be 125 MB."""


class Provenance:
    """Who is informed of whom, carried from round to round: one bit for each pair of peers.

    A peer is informed of itself at first, and in a round of all of which those are informed that it
    hears of, as they were before the round. It never forgets: its own data and networks stay, also
    where a mixing matrix has nothing on the diagonal.
    """

    def __init__(self, num_peers: int) -> None:
        """Begin before round 1.

        Args:
            num_peers: n >= 1.
        """
        self.num_peers = num_peers
        self.rounds = 0
        self.rounds_to_all: int | None = None if num_peers > 1 else 0
        self._bits: Bits = np.packbits(np.eye(num_peers, dtype=bool), axis=1)

    def step(self, links: nx.Graph | sparse.csr_array) -> None:
        """Go through one round.

        Args:
            links: The round's graph, or a matrix [n receivers, n senders] that is not zero where
                something arrived, such as its mixing matrix.
        """
        matrix = links if sparse.issparse(links) else adjacency(links)
        self._bits |= _heard(self._bits, sparse.csr_array(matrix != 0))
        self.rounds += 1
        if self.rounds_to_all is None and self.share_informed == 1:
            self.rounds_to_all = self.rounds

    @property
    def share_informed(self) -> float:
        """Share of the n x n pairs, in [1/n, 1]: 1/n at first, 1 once all are informed of all."""
        return int(np.bitwise_count(self._bits).sum(dtype=np.int64)) / self.num_peers**2

    def matrix(self) -> npt.NDArray[np.bool_]:
        """Return who is informed of whom.

        Returns:
            [n receivers, n sources].
        """
        return np.unpackbits(self._bits, axis=1, count=self.num_peers).astype(np.bool_)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return all that later rounds depend on.

        Returns:
            `informed`, the bits [n, ceil(n / 8)], uint8, and `rounds`, int64 [2]: how many there
            have been, and after how many everybody was informed of everybody, or -1.
        """
        reached = -1 if self.rounds_to_all is None else self.rounds_to_all
        return {"informed": self._bits.copy(), "rounds": np.array([self.rounds, reached])}

    @classmethod
    def restored(cls, num_peers: int, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Go on from what `state` returned.

        Args:
            num_peers: As then.
            state: As returned.

        Returns:
            One that continues with the same numbers.

        Raises:
            ValueError: The state is that of another number of peers.
        """
        provenance = cls(num_peers)
        bits, (rounds, reached) = state["informed"], state["rounds"].tolist()
        if bits.shape != provenance._bits.shape:
            raise ValueError(f"informed {bits.shape}: expected {provenance._bits.shape}")
        provenance._bits = np.array(bits, dtype=np.uint8)
        provenance.rounds, provenance.rounds_to_all = rounds, None if reached < 0 else reached
        return provenance


def informed(rounds: Iterable[nx.Graph | sparse.csr_array]) -> npt.NDArray[np.bool_]:
    """Tell who can have influenced whom after these rounds.

    Args:
        rounds: Each round's graph or mixing matrix, in order; at least one.

    Returns:
        [n receivers, n sources]; everybody influences itself.

    Raises:
        ValueError: There is no round, so that nobody knows how many peers there are.
    """
    provenance = None
    for links in rounds:
        if provenance is None:
            provenance = Provenance(links.shape[0] if sparse.issparse(links) else len(links))
        provenance.step(links)
    if provenance is None:
        raise ValueError("informed: expected at least one round")
    return provenance.matrix()


def _heard(bits: Bits, links: sparse.csr_array) -> Bits:
    """Join the rows of all senders of each receiver, a block of receivers at a time."""
    links.eliminate_zeros()
    joined = np.zeros_like(bits)
    receivers = np.flatnonzero(np.diff(links.indptr))  # reduceat cannot do empty rows
    starts = links.indptr[receivers].astype(np.int64)
    ends = links.indptr[receivers + 1].astype(np.int64)
    at_once = max(1, GATHERED_BYTES // bits.shape[1])
    first = 0
    while first < len(receivers):
        last = max(first + 1, int(np.searchsorted(ends, starts[first] + at_once, side="right")))
        rows = bits[links.indices[starts[first] : ends[last - 1]]]
        offsets = starts[first:last] - starts[first]
        joined[receivers[first:last]] = np.bitwise_or.reduceat(rows, offsets, axis=0)
        first = last
    return joined
