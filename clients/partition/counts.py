"""How many examples of each class each client gets: draw such tables, deal by them, sum them up.

A table is [K, C]: clients by classes, classes in ascending order. Drawing tables apart from dealing
out indices keeps a rejected draw cheap.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)  # eq=False: arrays have no truth value
class PartitionSummary:
    """What to log about a partition.

    Attributes:
        counts: [K, C], examples of each class at each client.
        sizes: [K], examples of each client.
        mean_emd: mean over clients of sum_y |p_k(y) - p(y)|, in [0, 2); 0 when every client has the
            class distribution p of all labels.
        mean_effective_classes: mean over clients of exp(entropy of p_k), in 1..C; 1 when every
            client has one class.
    """

    counts: Counts
    sizes: npt.NDArray[np.int64]
    mean_emd: float
    mean_effective_classes: float


def summary(
    labels: npt.NDArray[np.int64], parts: list[Indices], num_classes: int
) -> PartitionSummary:
    """Measure how unlike the clients of a partition are.

    Args:
        labels: [n], in 0..num_classes - 1.
        parts: K index arrays into `labels`, none of them empty.
        num_classes: C.

    Returns:
        Counts, sizes and their two usual one-number summaries.

    Reference:
        Zhao and others 2018, arXiv:1806.00582 (the distance, there called EMD).
    """
    counts = np.stack([np.bincount(labels[part], minlength=num_classes) for part in parts])
    sizes = counts.sum(axis=1)
    shares = counts / sizes[:, None]
    overall = np.bincount(labels, minlength=num_classes) / len(labels)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)  # 0 log 0 = 0
    return PartitionSummary(
        counts=counts,
        sizes=sizes,
        mean_emd=float(np.abs(shares - overall).sum(axis=1).mean()),
        mean_effective_classes=float(np.exp(-(shares * logs).sum(axis=1)).mean()),
    )


def dirichlet_shares(
    total: int, num_clients: int, concentration: float, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Split a number of examples in proportion to one draw of a symmetric Dirichlet distribution.

    Args:
        total: examples to split.
        num_clients: K, at least 1.
        concentration: > 0, of every client.
        rng: draws the proportions.

    Returns:
        [K], whole numbers that sum to `total`.
    """
    proportions = rng.dirichlet(np.full(num_clients, concentration))
    cuts = (proportions.cumsum()[:-1] * total).astype(np.int64)
    return np.diff(cuts, prepend=0, append=total)


def fill_places(
    clients: Indices, priors: Floats, class_sizes: npt.NDArray[np.int64], rng: np.random.Generator
) -> Counts:
    """Fill places one by one, each from its client's prior over the classes not yet exhausted.

    Args:
        clients: [n], the client of each place, in the order in which places are filled.
        priors: [K, C], class distribution of each client.
        class_sizes: [C], examples there are; they sum to n.
        rng: draws the classes.

    Returns:
        Table [K, C] with column sums `class_sizes`.
    """
    counts = np.zeros(priors.shape, dtype=np.int64)
    left = class_sizes.copy()
    tables: dict[int, list[float]] = {}  # cumulative probabilities, dropped when a class runs out
    uniforms = 1.0 - rng.random(len(clients))  # in (0, 1]: 0 would hit an exhausted first class
    for client, uniform in zip(clients.tolist(), uniforms.tolist(), strict=True):
        if client not in tables:
            tables[client] = _cumulative(priors[client], left)
        drawn = bisect_left(tables[client], uniform)
        counts[client, drawn] += 1
        left[drawn] -= 1
        if left[drawn] == 0:
            tables.clear()
    return counts


def _cumulative(prior: Floats, left: npt.NDArray[np.int64]) -> list[float]:
    cumulative = np.cumsum(prior * (left > 0))
    if cumulative[-1] == 0:  # at concentrations under about 0.01 a prior may be all on one class
        cumulative = np.cumsum(left, dtype=np.float64)
    table: list[float] = (cumulative / cumulative[-1]).tolist()
    return table


def draw_ownership(
    num_clients: int, num_classes: int, classes: int, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Draw which classes each client owns, every class by at least one client.

    Args:
        num_clients: K; K * `classes` is at least C.
        num_classes: C.
        classes: classes of each client, in 1..C.
        rng: draws all but the first class of each client.

    Returns:
        [K, C], `classes` true values in every row, at least one in every column.
    """
    owns = np.zeros((num_clients, num_classes), dtype=np.bool_)
    owns[np.arange(num_clients), np.arange(num_clients) % num_classes] = True
    orphans = rng.permutation(np.flatnonzero(~owns.any(axis=0)))
    free_slots = rng.permutation(np.repeat(np.arange(num_clients), classes - 1))
    owns[free_slots[: len(orphans)], orphans] = True
    for row in owns:
        row[rng.choice(np.flatnonzero(~row), classes - row.sum(), replace=False)] = True
    return owns


def redraw(draw: Callable[[], Counts], min_examples: int, max_redraws: int, advice: str) -> Counts:
    """Draw tables until every client has enough examples, a bounded number of times.

    Args:
        draw: returns a new table [K, C] at each call.
        min_examples: wanted row sum.
        max_redraws: at least 0; give up after so many.
        advice: what to change, for the message when none was good enough.

    Returns:
        The first table with all row sums of at least `min_examples`.

    Raises:
        ValueError: `max_redraws` is negative, or no table was good enough.
    """
    if max_redraws < 0:
        raise ValueError(f"max_redraws={max_redraws}, expected at least 0")
    for _ in range(1 + max_redraws):
        counts = draw()
        if counts.sum(axis=1).min() >= min_examples:
            return counts
    raise ValueError(
        f"no draw out of {1 + max_redraws} gave each of num_clients={len(counts)} clients "
        f"min_examples={min_examples}: {advice}, ask for fewer clients or raise max_redraws"
    )


def deal(labels: npt.NDArray[np.int64], counts: Counts, rng: np.random.Generator) -> list[Indices]:
    """Deal out the examples of each class at random, as many to each client as a table says.

    Args:
        labels: [n], C different ones.
        counts: [K, C], column sums equal to the class sizes.
        rng: shuffles each class.

    Returns:
        One sorted index array per client.
    """
    pieces: list[list[Indices]] = [[] for _ in counts]
    for label, column in zip(np.unique(labels), counts.T, strict=True):
        members = rng.permutation(np.flatnonzero(labels == label))
        for piece, dealt in zip(pieces, np.split(members, column.cumsum()[:-1]), strict=True):
            piece.append(dealt)
    return [np.sort(np.concatenate(piece)) for piece in pieces]


def check_request(labels: npt.NDArray[np.int64], num_clients: int, min_examples: int = 1) -> None:
    """Refuse a partition that cannot exist.

    Args:
        labels: [n].
        num_clients: K.
        min_examples: of each client.

    Raises:
        ValueError: `labels` is no vector, K or `min_examples` is under 1, or n is under their
            product.
    """
    if labels.ndim != 1:
        raise ValueError(f"labels has shape {labels.shape}, expected [n]")
    if num_clients < 1:
        raise ValueError(f"num_clients={num_clients}, expected at least 1")
    if min_examples < 1:
        raise ValueError(f"min_examples={min_examples}, expected at least 1")
    if num_clients * min_examples > len(labels):
        raise ValueError(
            f"num_clients={num_clients} but only {len(labels)} examples: every client needs at "
            f"least {min_examples}"
        )


def check_concentration(dirichlet_concentration: float) -> None:
    """Refuse what is no parameter of a Dirichlet distribution.

    Args:
        dirichlet_concentration: to be finite and > 0.

    Raises:
        ValueError: it is not.
    """
    if not 0 < dirichlet_concentration < np.inf:  # false for NaN too
        raise ValueError(
            f"dirichlet_concentration={dirichlet_concentration}, expected a finite number > 0"
        )


def check_classes(num_clients: int, classes: int, num_classes: int) -> None:
    """Refuse a number of classes per client that leaves classes without an owner.

    Args:
        num_clients: K.
        classes: classes of each client.
        num_classes: C, the classes there are.

    Raises:
        ValueError: `classes` is not in 1..C, or K * `classes` is under C.
    """
    if not 1 <= classes <= num_classes:
        raise ValueError(f"classes={classes}, expected 1..{num_classes}, the classes there are")
    if num_clients * classes < num_classes:
        raise ValueError(
            f"num_clients={num_clients} with classes={classes} own at most {num_clients * classes} "
            f"of the {num_classes} classes, but every example needs an owner: expected "
            f"num_clients * classes >= {num_classes}"
        )
