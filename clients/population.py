"""Which client has which architecture."""

from collections.abc import Mapping

import numpy as np


def assign_architectures(
    shares: Mapping[str, float], num_clients: int, rng: np.random.Generator
) -> list[str]:
    """Give each client the name of an architecture, in the shares asked for.

    Counts are the shares rounded by largest remainder, so they add up to `num_clients`; who gets
    what is shuffled, so that an architecture is not tied to the classes of neighbouring clients.

    Args:
        shares: Relative share of each architecture, > 0; they need not sum to one.
        num_clients: Number of clients, >= 1.
        rng: Source of the assignment.

    Returns:
        The architecture's name for client 0..num_clients-1.

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
    names = np.repeat(np.array(list(shares), dtype=object), counts)
    return [str(name) for name in rng.permutation(names)]
