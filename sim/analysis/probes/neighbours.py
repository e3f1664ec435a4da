"""How far neighbours of a graph are from each other in what they answer."""

import numpy as np
import torch

from clients.messages.round_views import GraphView
from sim.analysis.drift.output import entropy
from sim.analysis.probes.values import some_of

MOST_PAIRS = 2048
"""Pairs that are compared, 0.3 s: those of a complete graph of 400 peers, 79,800, took 31 s."""

PAIRS_AT_ONCE = 64
"""Pairs of neighbours whose answers are held in double precision: 13 MB for 256 examples of 100
classes."""

MOST_PEERS = 200
"""Of a graph that is drawn: beyond it nobody sees an edge."""


def neighbour_drift(view: GraphView) -> dict[str, float]:
    """Compare the answers of those who heard of each other.

    Args:
        view: Of one round.

    Returns:
        `neighbour_js` in [0, log 2] nats and `neighbour_disagreement` in [0, 1], means over pairs
        of neighbours and examples that both answered; of more than MOST_PAIRS over so many, evenly
        spread. Nothing if there are none.
    """
    if view.teachers is None or not view.teachers.soft:
        return {}
    rows = {peer: row for row, peer in enumerate(view.teachers.client_ids)}
    found = zip(view.senders.tolist(), view.receivers.tolist(), strict=True)
    both = {(min(pair), max(pair)) for pair in found if rows.keys() >= {*pair}}
    places = sorted((rows[i], rows[j]) for i, j in both)
    chosen = [places[k] for k in some_of(len(places), MOST_PAIRS)] if places else []
    pairs = torch.tensor(chosen, dtype=torch.int64).reshape(-1, 2)
    divergence = apart = count = 0.0
    for few in torch.split(pairs, PAIRS_AT_ONCE):
        one, other = (view.teachers.logits[few[:, end]].double().softmax(-1) for end in (0, 1))
        known = view.teachers.mask[few[:, 0]] & view.teachers.mask[few[:, 1]]
        mean = entropy((one + other) / 2, -1) - (entropy(one, -1) + entropy(other, -1)) / 2
        divergence += float(mean[known].sum())
        apart += float((one.argmax(-1) != other.argmax(-1))[known].sum())
        count += float(known.sum())
    if not count:
        return {}
    return {
        "neighbour_js": max(0.0, divergence / count),
        "neighbour_disagreement": apart / count,
    }


def accuracy_by_peer(
    rows: list[dict[str, object]], num_peers: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Collect each peer's accuracy from the rows of a round; NaN where it is not known."""
    values = np.full(num_peers, np.nan)
    for row in rows:
        if isinstance(accuracy := row.get("accuracy"), float):
            values[int(str(row["client"]))] = accuracy
    return values
