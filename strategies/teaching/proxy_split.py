"""Which proxy examples serve for what, all drawn once from the seed."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clients.seeding import Purpose, generator

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ProxyCut:
    """Negatives, and the distilled examples in chunks.

    Attributes:
        negative_ids: What discriminators are fitted against; never distilled. Ascending.
        chunks: The distilled ids, each chunk ascending.
        probes: Positions in each chunk of the examples that probes look at, ascending.
    """

    negative_ids: Ids
    chunks: tuple[Ids, ...]
    probes: tuple[Ids, ...]

    @property
    def distilled_ids(self) -> Ids:
        """All distilled ids, ascending."""
        return np.sort(np.concatenate(self.chunks))

    @property
    def probe_ids(self) -> Ids:
        """All ids that probes look at, ascending."""
        return np.sort(
            np.concatenate(
                [chunk[probe] for chunk, probe in zip(self.chunks, self.probes, strict=True)]
            )
        )


def cut_proxy(
    num_proxy: int,
    negative_share: float,
    need_negatives: bool,
    num_chunks: int,
    num_probe: int,
    seed: int,
) -> ProxyCut:
    """Cut a proxy set.

    Args:
        num_proxy: Size of the proxy set.
        negative_share: Share of it in [0, 1) that is kept for discriminators.
        need_negatives: Whether there must be at least one.
        num_chunks: S >= 1, of sizes that differ by one at most.
        num_probe: How many distilled examples probes look at, >= 1; all if there are fewer.
        seed: The run's seed.

    Returns:
        The cut.

    Raises:
        ValueError: A number is out of range, or there is nothing to distil, or less than a chunk
            needs.
    """
    if not 0 <= negative_share < 1:
        raise ValueError(f"negative_share={negative_share}: expected in [0, 1)")
    if num_probe < 1:
        raise ValueError(f"probe_examples={num_probe}: expected >= 1")
    order = generator(seed, Purpose.NEGATIVES).permutation(num_proxy)
    cut = round(negative_share * num_proxy)
    negatives, distilled = np.sort(order[:cut]), np.sort(order[cut:])
    if len(distilled) == 0 or (need_negatives and len(negatives) == 0):
        raise ValueError(
            f"negative_share={negative_share}: of {num_proxy} proxy examples it leaves "
            f"{len(negatives)} negatives and {len(distilled)} to distil, expected at least 1 of "
            "each"
        )
    if not 1 <= num_chunks <= len(distilled):
        raise ValueError(
            f"proxy_chunks={num_chunks}: expected from 1 to {len(distilled)}, the number of "
            "distilled examples"
        )
    # At random: the proxy set may be sorted by class.
    shuffled = generator(seed, Purpose.CHUNKS).permutation(distilled)
    chunks = tuple(np.sort(part) for part in np.array_split(shuffled, num_chunks))
    size = min(num_probe, len(distilled))
    probed = generator(seed, Purpose.PROBE).choice(distilled, size, replace=False)
    probes = tuple(np.flatnonzero(np.isin(chunk, probed)) for chunk in chunks)
    return ProxyCut(negatives, chunks, probes)
