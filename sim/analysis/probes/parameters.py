"""The probe of drift in parameter space."""

import re
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from clients.messages.round_views import ClientParameters, RoundView
from sim.analysis.drift import (
    Moments,
    consensus_distance,
    cosine_matrix,
    cosine_to_mean,
    gradient_diversity,
    moments,
    total,
)
from sim.analysis.probes.values import Table, Value, array, by_client, some_of

NUMBERS_AT_ONCE = 2**22
"""How many numbers of updates are held in double precision, 32 MB; beside them a copy or two."""

BUFFERS = re.compile(r"(^|\.)(running_mean|running_var|num_batches_tracked)$")
"""What batch normalisation keeps beside its parameters, by torch's names: no step moves it."""


def parameter_drift(view: RoundView, *, most_clients: int = 32) -> dict[str, Value]:
    """Tell how far local training took clients of one architecture from each other.

    Args:
        view: Of one round.
        most_clients: How many clients the figures show, spread evenly over the cohort, >= 1.

    Returns:
        Of the updates Delta_k = w_k - w: `gradient_diversity` from 1 / K, all alike;
        `consensus_distance` >= 0; by client `update_norm`, `relative_update_norm` (by ||w||,
        infinite if w is 0) and `cosine_to_mean` in [-1, 1]; figures `cosine_to_mean_by_layer`,
        layer x client, and `update_cosines`, client x client. Values are NaN where nothing moved.
        Nothing in a round that sends no parameters to the driver.
    """
    sent = view.parameters
    if sent is None or not sent.after:
        return {}
    names = [
        name
        for name, value in sent.before.items()
        if np.issubdtype(value.dtype, np.floating) and not BUFFERS.search(name)
    ]
    rows = some_of(len(sent.after), most_clients)
    ids = [view.teachers.client_ids[k] for k in rows]
    layers: dict[str, Moments] = {}
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for name in names:
        parts = []
        for updates in _updates(sent, name):
            parts.append(moments(updates))
            gram += updates[rows] @ updates[rows].T
        layers[name] = total(parts)
    if not layers:
        return {}
    whole = total(list(layers.values()))
    sizes = [np.square(sent.before[name], dtype=np.float64).sum() for name in names]
    size = torch.tensor(sum(sizes), dtype=torch.float64).sqrt()
    by_layer = torch.stack([cosine_to_mean(layer)[rows] for layer in layers.values()])
    return {
        "gradient_diversity": gradient_diversity(whole),
        "consensus_distance": consensus_distance(whole),
        "update_norm": by_client(whole.squared.sqrt()),
        "relative_update_norm": by_client(whole.squared.sqrt() / size),
        "cosine_to_mean": by_client(cosine_to_mean(whole)),
        "cosine_to_mean_by_layer": Table(array(by_layer), "layer", "client", names, ids),
        "update_cosines": Table(array(cosine_matrix(gram)), "client", "client", ids, ids),
    }


def _updates(sent: ClientParameters, name: str) -> Iterator[Tensor]:
    """Yield what each client added to one layer, [K, d] float64 of a few of its D at a time."""
    before, afters = sent.before[name].reshape(-1), [a[name].reshape(-1) for a in sent.after]
    most = max(1, NUMBERS_AT_ONCE // len(afters))
    for start in range(0, max(1, before.size), most):
        part = slice(start, start + most)
        base = before[part].astype(np.float64)
        yield torch.from_numpy(np.stack([after[part] - base for after in afters]))
