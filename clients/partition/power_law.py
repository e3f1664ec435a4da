"""The power law by which a few clients have most examples, of few classes each."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt

from clients.partition.counts import check_classes, check_request, deal, draw_ownership
from clients.partition.flat_partition import Partition

Labels = npt.NDArray[np.int64]


def power_law(
    labels: Labels,
    num_clients: int,
    rng: np.random.Generator,
    *,
    classes: Annotated[int, ">= 1"] = 2,
    spread: Annotated[float, ">= 0"] = 2.0,
    min_examples: Annotated[int, ">= 0"] = 5,
) -> Partition:
    """Sizes by a power law: few classes each, a class's examples in lognormal proportions.

    Each client owns so many classes, and has `min_examples` of each; what is left of a class goes
    to its owners in proportion to exp(N(0, spread^2)).

    Args:
        labels: [n], C different ones.
        num_clients: K; K * `classes` is at least C.
        rng: draws owners, proportions and examples.
        classes: classes of each client, in 1..C.
        spread: standard deviation of the logarithms, >= 0; 0 deals evenly.
        min_examples: of each of its classes, >= 1.

    Returns:
        Sorted indices of each of K clients.

    Raises:
        ValueError: a number is out of range, or a class has too few examples.

    Reference:
        Li and others 2020, arXiv:1812.06127, the cut of MNIST; in the authors' code client
        k owns k and k + 1 (modulo 10), and what rounding leaves over is nobody's.
    """
    check_request(labels, num_clients, min_examples)
    class_sizes = np.unique(labels, return_counts=True)[1]
    check_classes(num_clients, classes, len(class_sizes))
    if not 0 <= spread < np.inf:
        raise ValueError(f"spread={spread}, expected a finite number >= 0")
    owns = draw_ownership(num_clients, len(class_sizes), classes, rng)
    counts = np.zeros(owns.shape, dtype=np.int64)
    for column, size in enumerate(class_sizes.tolist()):
        owners = np.flatnonzero(owns[:, column])
        if (rest := size - min_examples * len(owners)) < 0:
            raise ValueError(
                f"min_examples={min_examples}: a class of {size} examples is owned by "
                f"{len(owners)} clients, expected at most {size // len(owners)}"
            )
        shares = rng.lognormal(0, spread, len(owners))
        cuts = (shares.cumsum()[:-1] / shares.sum() * rest).astype(np.int64)
        counts[owners, column] = min_examples + np.diff(cuts, prepend=0, append=rest)
    return deal(labels, counts, rng)
