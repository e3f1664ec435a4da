"""TEMP until the population helper's arrives."""

from collections.abc import Iterable

import numpy as np


def draw(node_ids: Iterable[int], fraction: float, rng: np.random.Generator) -> list[int]:
    """Draw."""
    ids = node_ids if isinstance(node_ids, range) else sorted(node_ids)
    size = max(1, round(fraction * len(ids)))
    return [ids[i] for i in sorted(rng.choice(len(ids), size, replace=False).tolist())]
