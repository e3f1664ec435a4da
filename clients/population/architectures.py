"""Which client has which architecture."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)  # eq=False: arrays have no truth value
class Architectures(Sequence[str]):
    """The architecture of each of K clients; reads like a list of names.

    Attributes:
        names: The architectures there are.
        codes: [K], unsigned integers: the position in `names` of each client's.
    """

    names: tuple[str, ...]
    codes: npt.NDArray[np.unsignedinteger[Any]]

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, client_id: int) -> str: ...
    @overload
    def __getitem__(self, client_id: slice) -> "Architectures": ...
    def __getitem__(self, client_id: int | slice) -> "str | Architectures":
        if isinstance(client_id, slice):
            return Architectures(self.names, self.codes[client_id])
        return self.names[int(self.codes[client_id])]

    def __iter__(self) -> Iterator[str]:
        return map(self.names.__getitem__, self.codes.tolist())

    def count(self, value: str) -> int:
        """Count the clients of an architecture; 0 if nobody has it."""
        if value not in self.names:
            return 0
        return int(np.count_nonzero(self.codes == self.names.index(value)))


def assign_architectures(
    shares: Mapping[str, float], num_clients: int, rng: np.random.Generator
) -> Architectures:
    """Give each client an architecture, in the shares asked for.

    Counts are the shares rounded by largest remainder, so they add up to `num_clients`; who gets
    what is shuffled, so that an architecture is not tied to the classes of neighbouring clients.

    Args:
        shares: Relative share of each architecture, > 0; they need not sum to one.
        num_clients: Number of clients, >= 1.
        rng: Source of the assignment.

    Returns:
        The architecture of client 0..num_clients-1.

    Raises:
        ValueError: A share is not positive, or there are no architectures or clients.
    """
    if not shares or num_clients < 1:
        raise ValueError(
            f"{len(shares)} architectures for num_clients={num_clients}: expected >= 1 of each"
        )
    for name, share in shares.items():
        if not 0 < share < np.inf:
            raise ValueError(f"share={share} of architecture '{name}': expected > 0 and finite")
    exact = np.array(list(shares.values()), dtype=np.float64)
    exact *= num_clients / exact.sum()
    counts = np.floor(exact).astype(int)
    # Stable sort: equal remainders go to the architecture that was named first.
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: num_clients - counts.sum()]] += 1
    # One byte a client up to 256 architectures.
    kinds = np.arange(len(shares), dtype=np.min_scalar_type(len(shares) - 1))
    return Architectures(tuple(map(str, shares)), rng.permutation(np.repeat(kinds, counts)))
