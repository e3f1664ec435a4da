"""Selection: which of the distilled examples are asked about, and learned from, in a round.

A selection is a function that names what it looks at, of `OFFERED`, and gives positions among the
candidates. The probe examples are answered in every round all the same, for whoever watches, but
not learned from unless they are selected.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import numpy as np
from torch import Tensor, nn

from clients.data import normalised
from clients.execution.isolation import keeps_nothing
from clients.seeding import Purpose, generator
from clients.signatures import named_of, names, require_given
from clients.training.evaluation import predict
from clients.training.local_context import array_of
from strategies.teaching.proxy_split import Ids, ProxySplit

Selection = Callable[..., Any]
"""(what it names of OFFERED) -> positions [M] among the N candidates, or a mask [N] bool."""

OFFERED = ("student", "ids", "inputs", "rng", "server_round")
"""The student's logits [N, C] before its lesson, ids of the candidates [N], their inputs [N, ...],
a generator of the round, and the round."""


def random(
    *,
    ids: Ids,
    rng: np.random.Generator,
    share: Annotated[float, "in (0, 1]"] = 0.5,
    examples: Annotated[int, ">= 1"] | None = None,
) -> Ids:
    """Selection of some examples at random.

    Args:
        ids: Of the candidates [N].
        rng: Draws them.
        share: Of the candidates, in (0, 1]; at least one.
        examples: So many in the place of a share, >= 1; all if there are fewer. None = the share.

    Returns:
        Positions [M].
    """
    if examples is not None and examples < 1:
        raise ValueError(f"strategy.selection.examples={examples}: expected >= 1, or null")
    most = _most(share, len(ids)) if examples is None else examples
    return rng.permutation(len(ids))[:most]


def uncertain(*, student: Tensor, share: Annotated[float, "in (0, 1]"] = 0.5) -> Ids:
    """Selection of those of which the student is least sure: largest entropy of its softmax.

    Args:
        student: Its logits [N, C].
        share: Of the candidates, in (0, 1]; at least one.

    Returns:
        Positions [M].

    Reference: uncertainty sampling, Settles, "Active learning literature survey", 2009, sec. 3.1.
    """
    log_probs = student.log_softmax(-1)
    terms = log_probs.exp() * log_probs
    entropy = -terms.masked_fill(log_probs.isneginf(), 0).sum(-1).numpy()  # 0 log 0 = 0
    return np.argsort(-entropy, kind="stable")[: _most(share, len(entropy))]


def diverse(
    *, student: Tensor, rng: np.random.Generator, share: Annotated[float, "in (0, 1]"] = 0.5
) -> Ids:
    """Selection of examples that are far from each other in what the student says of them.

    Greedy k-center: after a first one at random, always the one that is farthest, by its softmax,
    from all that are there.

    Args:
        student: Its logits [N, C].
        rng: Draws the first.
        share: Of the candidates, in (0, 1]; at least one.

    Returns:
        Positions [M].

    Reference: Sener and Savarese, "Active learning for convolutional neural networks: a core-set
    approach", ICLR 2018 (arXiv:1708.00489), algorithm 1.
    """
    probs = student.softmax(-1).numpy()
    chosen = [int(rng.integers(len(probs)))]
    nearest = np.full(len(probs), np.inf)
    for _ in range(_most(share, len(probs)) - 1):
        nearest = np.minimum(nearest, np.linalg.norm(probs - probs[chosen[-1]], axis=1))
        nearest[chosen[-1]] = -1  # of equal ones each is taken once
        chosen.append(int(nearest.argmax()))
    return np.array(chosen)


def minority(
    *, student: Tensor, rng: np.random.Generator, share: Annotated[float, "in (0, 1]"] = 0.5
) -> Ids:
    """Selection of as many of each class as can be, by what the student takes them for.

    Args:
        student: Its logits [N, C].
        rng: Draws who is taken of a class.
        share: Of the candidates, in (0, 1]; at least one.

    Returns:
        Positions [M]: class by class in turn, so that of rare classes all are there.
    """
    classes = student.argmax(-1).numpy()
    order = rng.permutation(len(classes))
    rank = np.empty(len(classes), np.int64)  # how many of its class come before it
    for c in np.unique(classes):
        members = order[classes[order] == c]
        rank[members] = np.arange(len(members))
    return np.lexsort((order, rank))[: _most(share, len(classes))]


# --- how a round goes by one ---


def require_selection(selection: Selection, split: ProxySplit) -> None:
    """Refuse one that needs what nobody gives it, or another task; ValueError names the key."""
    split.require_whole()
    require_given(selection, 0, OFFERED, "strategy.selection")
    task = split.proxy.task
    if names(selection, "student") and (task.sites > 1 or not task.soft):
        what = f"{task.sites} rows" if task.sites > 1 else "numbers"
        raise ValueError(
            f"strategy.selection: goes by the student's logits of each input, of which {task.name} "
            f"has {what}: expected one that does not, such as strategy/selection=random"
        )


def selected(
    selection: Selection, split: ProxySplit, student: nn.Module, seed: int, server_round: int
) -> ProxySplit:
    """Return the split of a round: what is selected, and what probes look at.

    Args:
        selection: Anyone's.
        split: Of the whole run, in one chunk.
        student: As it is before its lesson.
        seed: The run's.
        server_round: 1..R.

    Returns:
        It, of which only what was selected is learned from.

    Raises:
        ValueError: The selection gave something else, or nothing; names the key.
    """
    ids = split.distilled_ids
    offered: dict[str, Callable[[], Any]] = {
        "student": lambda: predict(student, split.proxy, ids),
        "ids": ids.copy,
        "inputs": partial(normalised, split.proxy, ids),
        "rng": partial(generator, seed, Purpose.SELECTION, server_round),
        "server_round": lambda: server_round,
    }
    with keeps_nothing(**{"strategy.selection": selection}):
        found = selection(**named_of(selection, offered))
    return split.of_round(ids[_positions(found, len(ids))])


def _positions(given: Any, number: int) -> Ids:
    """Read what a selection gave; who tells the error says which round it was."""
    expected = f"expected positions [M] among {number} candidates, each once, or a mask [{number}]"
    found = array_of("strategy.selection: what it gave", "positions", given)
    if found.dtype == np.bool_ and found.shape == (number,):
        if not found.any():
            raise ValueError(f"strategy.selection: its mask [{number}] selects nothing, {expected}")
        return np.flatnonzero(found)
    if found.ndim != 1 or found.dtype.kind not in "iu" or not found.size:
        gave = f"{found.dtype} {[*found.shape]}" if found.shape != (0,) else "no position"
        raise ValueError(f"strategy.selection: gave {gave}, {expected}")
    if beyond := [place for place in (found.min(), found.max()) if not 0 <= place < number]:
        raise ValueError(
            f"strategy.selection: gave position {beyond[0]}, which is none of 0..{number - 1}"
        )
    places, counts = np.unique(found, return_counts=True)
    if counts.max() > 1:
        twice, times = places[counts.argmax()], counts.max()
        raise ValueError(f"strategy.selection: gave position {twice} {times} times, {expected}")
    return places.astype(np.int64)


def _most(share: float, number: int) -> int:
    if not 0 < share <= 1:
        raise ValueError(f"strategy.selection.share={share}: expected in (0, 1]")
    return max(1, round(share * number))
