"""Labels and requests to partition them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from clients import partition

Ints = npt.NDArray[np.int64]


@st.composite
def requests(draw: st.DrawFn) -> tuple[Ints, int, int]:
    """Labels of 2 to 7 classes with gaps, 30 to 60 examples of each, and 4 to 8 clients and a seed.

    4 clients of 2 classes can own 7 classes. The hardest request (8 clients, 60 examples) is met by
    27 % of dirichlet_balanced's draws (measured), so that all 1,001 fail with probability 1e-137.
    """
    classes = draw(st.lists(st.integers(0, 20), min_size=2, max_size=7, unique=True))
    sizes = [draw(st.integers(30, 60)) for _ in classes]
    labels = np.repeat(np.array(classes, dtype=np.int64), sizes)
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).permutation(labels), draw(st.integers(4, 8)), seed


def balanced(num_classes: int = 10, per_class: int = 100) -> Ints:
    return np.repeat(np.arange(num_classes, dtype=np.int64), per_class)


def table(labels: Ints, parts: Sequence[Ints]) -> Ints:
    """Clients by classes, with the zeros that a summary leaves out."""
    found = partition.summary(labels, parts, int(labels.max()) + 1)
    counts = np.zeros((len(parts), int(labels.max()) + 1), dtype=np.int64)
    counts[found.clients, found.labels] = found.counts
    return counts
