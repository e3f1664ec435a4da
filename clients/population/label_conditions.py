"""Conditions: what is done to the labels that clients learn, on purpose.

One is a function of labels [n], number of classes, client id and round, and of what it names of
`clients.population.plugin_arguments.CONDITION`; it returns classes [n], `UNLABELLED` (-1) where
there is none, or soft labels [n, C]. What `rng` draws is the same in each round: labels stay.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from clients.data.label_checks import UNLABELLED, Labels

Condition = Callable[..., Labels]
"""(labels [n], number of classes, client id, server round 1..R, ...) -> the labels that it learns
in that round: classes [n], int64, or soft labels [n, C]; of other tasks as these have them."""

Integers = npt.NDArray[np.int64]


def permuted_labels(
    labels: Integers,
    num_classes: int,
    client_id: int,
    server_round: int,
    *,
    clients: Sequence[Annotated[int, ">= 0"]],
    from_round: Annotated[int, ">= 1"] = 1,
    shift: int = 1,
) -> Integers:
    """Label permutation: some clients take every class for another one, y -> (y + shift) mod C.

    Args:
        labels: True classes [n].
        num_classes: C.
        client_id: Whose they are.
        server_round: 1..R.
        clients: Ids of the clients that do.
        from_round: In which round they begin to.
        shift: How far; a multiple of C changes nothing.

    Returns:
        The classes that the client learns [n].

    Raises:
        ValueError: The labels are no classes.

    Reference:
        The label flipping of Fang et al., "Local Model Poisoning Attacks to Byzantine-Robust
        Federated Learning", 2020, sec. 5.1, with a permutation that leaves no class as it is.
    """
    if client_id not in clients or server_round < from_round:
        return labels
    return _moved(labels, shift, num_classes, "permuted_labels")


def symmetric_noise(
    labels: Integers,
    num_classes: int,
    client_id: int,
    server_round: int,
    *,
    rng: np.random.Generator,
    share: Annotated[float, "in [0, 1]"],
) -> Integers:
    """Symmetric label noise: each label is another class with probability `share`, any alike.

    P(learned = y) = 1 - share, and share / (C - 1) for each other class.

    Args:
        labels: True classes [n].
        num_classes: C, at least 2.
        client_id: Whose they are.
        server_round: Not looked at.
        rng: Says which labels, and what they become.
        share: In [0, 1].

    Returns:
        The classes that the client learns [n].

    Raises:
        ValueError: The labels are no classes.

    Reference:
        Van Rooyen, Menon, Williamson, "Learning with Symmetric Label Noise", NeurIPS 2015; as drawn
        here Han et al., "Co-teaching", NeurIPS 2018, app. A.
    """
    wrong = rng.random(labels.shape) < share
    steps = wrong * rng.integers(1, num_classes, labels.shape)
    return _moved(labels, steps, num_classes, "symmetric_noise")


def pair_noise(
    labels: Integers,
    num_classes: int,
    client_id: int,
    server_round: int,
    *,
    rng: np.random.Generator,
    share: Annotated[float, "in [0, 1]"],
) -> Integers:
    """Pair label noise, which depends on the class: y -> (y + 1) mod C with probability `share`.

    Args:
        labels: True classes [n].
        num_classes: C.
        client_id: Whose they are.
        server_round: Not looked at.
        rng: Says which labels.
        share: In [0, 1].

    Returns:
        The classes that the client learns [n].

    Raises:
        ValueError: The labels are no classes.

    Reference:
        Han et al., "Co-teaching", NeurIPS 2018, app. A, "pair flipping".
    """
    wrong = rng.random(labels.shape) < share
    return _moved(labels, wrong.astype(np.int64), num_classes, "pair_noise")


def coarse_labels(
    labels: Integers,
    num_classes: int,
    client_id: int,
    server_round: int,
    *,
    groups: Sequence[Sequence[int]],
) -> npt.NDArray[np.float32]:
    """Coarse labels: a client knows the group of a class only, and takes all in it for as likely.

    Of an example of class y in group G it learns 1 / |G| for each class in G. A class in no group
    is one by itself.

    Args:
        labels: True classes [n].
        num_classes: C.
        client_id: Whose they are.
        server_round: Not looked at.
        groups: Classes in 0..C - 1, each in one group at most.

    Returns:
        Soft labels [n, C].

    Raises:
        ValueError: A class is not there, or is in two groups; or there is not one class of each
            example.

    Reference:
        Candidate sets of Cour, Sapp, Taskar, "Learning from Partial Labels", JMLR 12 (2011), alike
        for all examples of a class; taken for probabilities by us.
    """
    _require_one_each(labels, "coarse_labels")
    named = [label for group in groups for label in group]
    if odd := [label for label in named if label not in range(num_classes)]:
        raise ValueError(f"groups: there is no class {odd[0]}, expected 0..{num_classes - 1}")
    if len({*named}) < len(named):
        raise ValueError(f"groups={[[*group] for group in groups]}: a class is there twice")
    said = np.eye(num_classes, dtype=np.float32)
    for group in map(list, groups):
        said[np.ix_(group, group)] = 1 / max(1, len(group))
    return said[labels]


def label_free(
    labels: Integers,
    num_classes: int,
    client_id: int,
    server_round: int,
    *,
    clients: Sequence[Annotated[int, ">= 0"]],
) -> Integers:
    """Label-free clients: some have no label at all, and learn nothing in local training.

    Their loss is 0, and so is its gradient: they move by weight decay alone, and their batch norms
    see their inputs. They answer, and digest what they are sent, as anybody.

    Args:
        labels: True classes [n].
        num_classes: C.
        client_id: Whose they are.
        server_round: Not looked at.
        clients: Ids of the clients that have none.

    Returns:
        The same, or `UNLABELLED` (-1) throughout [n].

    Raises:
        ValueError: The labels are no classes.
    """
    _require_classes(labels, "label_free")
    return np.full_like(labels, UNLABELLED) if client_id in clients else labels


def taggers(
    labels: Integers,
    num_classes: int,
    client_id: int,
    server_round: int,
    *,
    rng: np.random.Generator,
    quality: Sequence[Annotated[float, "in [0, 1]"]] | None = None,
    beta: Sequence[Annotated[float, "> 0"]] = (6.0, 2.0),
    votes: Annotated[int, ">= 1"] = 5,
    soft: bool = True,
) -> Labels:
    """Labels by taggers: several people look at each example, of a quality of the client's own.

    Each names the true class with probability q, and else any other alike, all by themselves.

    Args:
        labels: True classes [n].
        num_classes: C, at least 2.
        client_id: Whose they are.
        server_round: Not looked at.
        rng: Says what they say, and q.
        quality: q of client 0, 1, ... in [0, 1], and again from the first; None = q ~ Beta(a, b).
        beta: a and b, > 0; the mean of q is a / (a + b).
        votes: How many look at each example, >= 1.
        soft: Whether a client learns the share of votes for each class; else the class with most,
            the first of several.

    Returns:
        Soft labels [n, C], or classes [n].

    Raises:
        ValueError: A number is out of range, or there is not one class of each example.

    Reference:
        Dawid, Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM
        Algorithm", Applied Statistics 28 (1979), with one number for each client's taggers.
    """
    _require_one_each(labels, "taggers")
    if votes < 1:
        raise ValueError(f"votes={votes}: expected >= 1")
    a, b = beta
    if not min(a, b) > 0:
        raise ValueError(f"beta={[a, b]}: expected two numbers > 0")
    if quality is not None and not all(0 <= each <= 1 for each in quality):
        raise ValueError(f"quality={[*quality]}: expected numbers in [0, 1], or null")
    sure = quality[client_id % len(quality)] if quality else rng.beta(a, b)
    size = len(labels), votes
    wrong = rng.random(size) >= sure
    said = (labels[:, None] + wrong * rng.integers(1, num_classes, size)) % num_classes
    rows = np.arange(len(labels))[:, None] * num_classes
    counts = np.bincount((rows + said).ravel(), minlength=len(labels) * num_classes)
    counts = counts.reshape(len(labels), num_classes)
    return (counts / votes).astype(np.float32) if soft else counts.argmax(1)


def _moved(labels: Integers, steps: Any, num_classes: int, who: str) -> Integers:
    """Move labels up by so many classes, but for those that are none."""
    _require_classes(labels, who)
    return np.where(labels < 0, labels, (labels + steps) % num_classes)


def _require_classes(labels: Labels, who: str) -> None:
    if labels.dtype.kind == "f":
        raise ValueError(f"{who} takes classes for others, and these labels are numbers")


def _require_one_each(labels: Labels, who: str) -> None:
    _require_classes(labels, who)
    if labels.ndim != 1:
        raise ValueError(f"{who} takes one class of each example, and here are several")
    if (labels < 0).any():  # as an index -1 is the last class
        raise ValueError(f"{who} takes one class of each example, and some have none: put it first")
