"""The rules by which the private set is dealt out among the clients.

Every function takes the labels [n] of the private set, the number of clients K and a random
generator, and returns a `Partition`: sorted indices of each client, every index exactly once.
Which examples of a class a client gets is random, so the order of the input does not matter.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt

from clients.partition.counts import (
    Counts,
    check_classes,
    check_concentration,
    check_request,
    deal,
    dirichlet_shares,
    draw_ownership,
    fill_places,
    redraw,
)
from clients.partition.flat_partition import Partition, by_owner

Labels = npt.NDArray[np.int64]

# A draw of sizes costs about 0.1 ms for 10 classes and 100 clients: giving up takes 0.1 s.
MAX_REDRAWS = 1000


def iid(labels: Labels, num_clients: int, rng: np.random.Generator) -> Partition:
    """Shuffle and deal out evenly; sizes differ by at most 1.

    Args:
        labels: [n], only their number matters.
        num_clients: K, in 1..n.
        rng: draws the permutation.

    Returns:
        Sorted indices of each of K clients.

    Raises:
        ValueError: fewer examples than clients.

    Reference:
        McMahan and others 2017, arXiv:1602.05629, section 3.
    """
    check_request(labels, num_clients)
    order = rng.permutation(len(labels))
    return by_owner(order, _in_runs(_even_sizes(len(labels), num_clients)), num_clients)


def dirichlet(
    labels: Labels,
    num_clients: int,
    rng: np.random.Generator,
    *,
    dirichlet_concentration: Annotated[float, "> 0"],
    balance: bool = False,
    min_examples: Annotated[int, ">= 0"] = 1,
    max_redraws: int = MAX_REDRAWS,
) -> Partition:
    """Share every class among the clients by its own draw q ~ Dir(concentration * 1_K).

    Args:
        labels: [n].
        num_clients: K, in 1..n.
        rng: draws shares and examples.
        dirichlet_concentration: > 0; 0.1 is very skewed, 100 nearly even.
        balance: give nothing more to clients that already hold n/K, class after class, as the code
            of NIID-Bench, FedML and FedDF does; without it sizes are very uneven.
        min_examples: draw again until every client has so many, in 1..n // K.
        max_redraws: give up after so many.

    Returns:
        Sorted indices of each of K clients.

    Raises:
        ValueError: a number is out of range, or no draw reached `min_examples`.

    Reference:
        Yurochkin and others 2019, arXiv:1905.12022; NIID-Bench, arXiv:2102.02079, noniid-labeldir.
    """
    check_request(labels, num_clients, min_examples)
    check_concentration(dirichlet_concentration)
    class_sizes = np.unique(labels, return_counts=True)[1]

    def draw() -> Counts:
        counts = np.zeros((num_clients, len(class_sizes)), dtype=np.int64)
        for column, size in enumerate(class_sizes.tolist()):
            # Never empty with examples left to share: not all clients can hold n/K by then.
            held = counts.sum(axis=1) if balance else np.zeros(num_clients)
            open_to = np.flatnonzero(held * num_clients < len(labels))
            # A draw among those alone has the law of a draw among all with the others struck out
            # and the rest rescaled, and cannot end in 0/0 where all mass was struck out.
            shares = dirichlet_shares(size, len(open_to), dirichlet_concentration, rng)
            counts[open_to, column] = shares
        return counts

    advice = (
        f"raise dirichlet_concentration={dirichlet_concentration}, take dirichlet_per_client "
        "(equal sizes)"
    )
    return deal(labels, redraw(draw, min_examples, max_redraws, advice), rng)


def dirichlet_per_client(
    labels: Labels,
    num_clients: int,
    rng: np.random.Generator,
    *,
    dirichlet_concentration: Annotated[float, "> 0"],
) -> Partition:
    """Give every client its own class prior q_k ~ Dir(concentration * p) and equally many examples.

    p is the class distribution of `labels`. Places are filled in random order, each from its
    client's prior over the classes not yet exhausted.

    Args:
        labels: [n], C different ones.
        num_clients: K, in 1..n; sizes differ by at most 1.
        rng: draws priors, the order of filling and examples.
        dirichlet_concentration: > 0, the total over classes: concentration / C for each of C
            equally frequent ones (Flower's InnerDirichletPartitioner takes that quotient).

    Returns:
        Sorted indices of each of K clients.

    Raises:
        ValueError: a number is out of range.

    Reference:
        Hsu, Qi and Brown 2019, arXiv:1909.06335, section 3.1.
    """
    check_request(labels, num_clients)
    check_concentration(dirichlet_concentration)
    class_sizes = np.unique(labels, return_counts=True)[1]
    priors = rng.dirichlet(dirichlet_concentration * class_sizes / len(labels), size=num_clients)
    places = rng.permutation(np.arange(len(labels)) % num_clients)
    return deal(labels, fill_places(places, priors, class_sizes, rng), rng)


def shards(
    labels: Labels,
    num_clients: int,
    rng: np.random.Generator,
    *,
    shards_per_client: Annotated[int, ">= 1"] = 2,
) -> Partition:
    """Sort by label, cut into equal shards, give every client the same number at random.

    Args:
        labels: [n].
        num_clients: K, at least 1.
        rng: shuffles within classes before the cut, and deals out the shards.
        shards_per_client: in 1..n // K; shard sizes differ by at most 1, none is dropped.

    Returns:
        Sorted indices of each of K clients.

    Raises:
        ValueError: fewer examples than shards.

    Reference:
        McMahan and others 2017, arXiv:1602.05629, section 3 ("pathological non-IID").
    """
    check_request(labels, num_clients)
    num_shards = num_clients * shards_per_client
    if not num_clients <= num_shards <= len(labels):
        raise ValueError(
            f"shards_per_client={shards_per_client}, expected 1..{len(labels) // num_clients} "
            f"for num_clients={num_clients} and {len(labels)} examples"
        )
    shuffled = rng.permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    owner_of_shard = np.empty(num_shards, dtype=np.int32)
    owner_of_shard[rng.permutation(num_shards)] = _in_runs(np.full(num_clients, shards_per_client))
    owners = np.repeat(owner_of_shard, _even_sizes(len(labels), num_shards))
    return by_owner(by_label, owners, num_clients)


def classes_per_client(
    labels: Labels,
    num_clients: int,
    rng: np.random.Generator,
    *,
    classes: Annotated[int, ">= 1"] = 2,
    max_redraws: int = MAX_REDRAWS,
) -> Partition:
    """Give every client examples of exactly so many classes; owners of a class share it evenly.

    Client i owns class i mod C. With fewer clients than classes, those left over are dealt out
    next, so that every class has an owner. All further classes are random.

    Args:
        labels: [n], C different ones.
        num_clients: K; K * `classes` must be at least C.
        rng: draws the classes, and which examples each owner gets.
        classes: classes of each client, in 1..C.
        max_redraws: draw again, at most so often, while a class has more owners than examples.

    Returns:
        Sorted indices of each of K clients.

    Raises:
        ValueError: a number is out of range, or every draw gave a class too many owners.

    Reference:
        NIID-Bench (Li and others 2022), arXiv:2102.02079, noniid-#label-k.
    """
    check_request(labels, num_clients)
    class_sizes = np.unique(labels, return_counts=True)[1]
    check_classes(num_clients, classes, len(class_sizes))

    def draw() -> Counts:
        owns = draw_ownership(num_clients, len(class_sizes), classes, rng)
        owners, rank = owns.sum(axis=0), owns.cumsum(axis=0) - 1
        counts = owns * (class_sizes // owners + (rank < class_sizes % owners))
        # An owner without an example does not have the class: no better than an empty client.
        return counts if (counts[owns] > 0).all() else np.zeros_like(counts)

    advice = f"lower classes={classes}, as some class has more owners than examples"
    return deal(labels, redraw(draw, 1, max_redraws, advice), rng)


def quantity_skew(
    labels: Labels,
    num_clients: int,
    rng: np.random.Generator,
    *,
    dirichlet_concentration: Annotated[float, "> 0"],
    min_examples: Annotated[int, ">= 0"] = 1,
    max_redraws: int = MAX_REDRAWS,
) -> Partition:
    """Give clients random examples, but numbers of them in proportion to one Dirichlet draw.

    Args:
        labels: [n], only their number matters.
        num_clients: K, in 1..n.
        rng: draws sizes and the permutation.
        dirichlet_concentration: > 0; small means uneven sizes.
        min_examples: draw again until every client has so many, in 1..n // K.
        max_redraws: give up after so many.

    Returns:
        Sorted indices of each of K clients.

    Raises:
        ValueError: a number is out of range, or no draw reached `min_examples`.

    Reference:
        NIID-Bench (Li and others 2022), arXiv:2102.02079, iid-diff-quantity.
    """
    check_request(labels, num_clients, min_examples)
    check_concentration(dirichlet_concentration)

    def draw() -> Counts:
        return dirichlet_shares(len(labels), num_clients, dirichlet_concentration, rng)[:, None]

    advice = f"raise dirichlet_concentration={dirichlet_concentration}"
    sizes = redraw(draw, min_examples, max_redraws, advice)[:, 0]
    return by_owner(rng.permutation(len(labels)), _in_runs(sizes), num_clients)


def _even_sizes(total: int, pieces: int) -> npt.NDArray[np.int64]:
    """Cut a total into sizes that differ by at most 1, the larger ones first."""
    return total // pieces + (np.arange(pieces) < total % pieces)


def _in_runs(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Name client 0 sizes[0] times, then client 1 sizes[1] times, ..."""
    return np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
