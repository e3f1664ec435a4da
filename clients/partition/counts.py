"""How many examples of each class each client gets: draw such tables and deal by them.

A table is [K, C]: clients by classes, classes in ascending order. Drawing tables apart from dealing
out indices keeps a rejected draw cheap.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from clients.partition.flat_partition import Indices, Partition, by_owner

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


FEWEST_ROWS, MOST_CELLS = 1024, 2**20
"""Places that are filled at once: from 1,024 after a class ran out, when the rest of a block is
drawn again, to as many as make 8 MiB of cumulative probabilities."""


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
        clients: [n], the client of each place, in the order in which places are filled; n > 0.
        priors: [K, C], class distribution of each client.
        class_sizes: [C], examples there are; they sum to n.
        rng: draws the classes.

    Returns:
        Table [K, C] with column sums `class_sizes`.
    """
    left = class_sizes.copy()
    uniforms = 1.0 - rng.random(len(clients))  # in (0, 1]: 0 would hit an exhausted first class
    drawn = np.empty(len(clients), dtype=np.int64)
    tables: dict[int, Floats] = {}
    start, rows = 0, FEWEST_ROWS
    while start < len(clients):
        block = slice(start, start + rows)
        classes = _draw_classes(clients[block], priors, left, uniforms[block], tables)
        classes = classes[: _until_one_runs_out(classes, left)]
        drawn[start : start + len(classes)] = classes
        start += len(classes)
        left -= np.bincount(classes, minlength=len(left))
        rows = min(2 * rows, max(FEWEST_ROWS, MOST_CELLS // len(left)))
        if left[classes[-1]] == 0:  # of the classes of a block only the last can have run out
            tables.clear()
            rows = FEWEST_ROWS
    cells = np.bincount(clients * len(left) + drawn, minlength=priors.size)
    return cells.reshape(priors.shape)


def _draw_classes(
    clients: Indices,
    priors: Floats,
    left: npt.NDArray[np.int64],
    uniforms: Floats,
    tables: dict[int, Floats],
) -> npt.NDArray[np.int64]:
    """Draw the class of each place of a block as if no class ran out within it.

    At concentrations under about 0.01 a prior may be all on classes that have run out. Such a
    client draws in proportion to what was left when it first met that; `tables` remembers it.
    """
    cumulative = np.cumsum(priors[clients] * (left > 0), axis=1)
    totals = cumulative[:, -1]
    lost = np.flatnonzero(totals == 0)
    cumulative /= np.where(totals == 0, 1.0, totals)[:, None]
    drawn: npt.NDArray[np.int64] = (cumulative < uniforms[:, None]).sum(axis=1)
    drawn[lost] = 0
    now, counted = left.copy(), 0
    for place, client in zip(lost.tolist(), clients[lost].tolist(), strict=True):
        now -= np.bincount(drawn[counted:place], minlength=len(left))
        counted = place
        if (now[left > 0] <= 0).any():  # the caller drops everything from here on
            break
        if client not in tables:
            tables[client] = np.cumsum(now) / now.sum()
        drawn[place] = np.searchsorted(tables[client], uniforms[place])
    return drawn


def _until_one_runs_out(classes: npt.NDArray[np.int64], left: npt.NDArray[np.int64]) -> int:
    """Count the places of a block up to the first that takes the last example of its class."""
    exhausted = np.flatnonzero((np.bincount(classes, minlength=len(left)) >= left) & (left > 0))
    ends = [np.flatnonzero(classes == label)[left[label] - 1] + 1 for label in exhausted]
    return int(min(ends, default=len(classes)))


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
    # Per client: `choice` takes as many random numbers as it needs, so the rows cannot be drawn at
    # once without other bits. About 7 microseconds each.
    for row, lacking in zip(owns, (classes - owns.sum(axis=1)).tolist(), strict=True):
        if lacking:
            row[rng.choice(np.flatnonzero(~row), lacking, replace=False)] = True
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


def deal(labels: npt.NDArray[np.int64], counts: Counts, rng: np.random.Generator) -> Partition:
    """Deal out the examples of each class at random, as many to each client as a table says.

    Args:
        labels: [n], C different ones.
        counts: [K, C], column sums equal to the class sizes.
        rng: shuffles each class.

    Returns:
        Sorted indices of each of K clients.
    """
    clients = np.arange(len(counts), dtype=np.int32)
    order, owners = [], []
    for label, column in zip(np.unique(labels), counts.T, strict=True):
        order.append(rng.permutation(np.flatnonzero(labels == label)))
        owners.append(np.repeat(clients, column))
    return by_owner(np.concatenate(order), np.concatenate(owners), len(counts))


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
