"""Probes of trust, and of drift in output space.

A view shows a fixed subset of the distilled proxy examples, `strategy.proxy_split.probe_examples`.
"""

from typing import Annotated

import torch

from clients.messages.round_views import RoundView
from sim.analysis.drift import (
    disagreement_by_client,
    disagreement_matrix,
    effective_teachers,
    entropy,
    jensen_shannon_matrix,
    kl_from_ensemble,
    kl_to_ensemble,
    squared_distances,
)
from sim.analysis.probes.values import Table, Value, array, by_client, some_of

EXAMPLES_AT_ONCE = 16
"""How many examples' answers are held in double precision: 13 MB for 1,000 clients, 100 classes."""

ROWS_AT_ONCE = 512
"""The same of tasks with many rows of answers each: 8 MB for 100 clients and 20 classes."""


def trust(view: RoundView) -> dict[str, Value]:
    """Tell how evenly trust is spread over teachers.

    Args:
        view: Of one round.

    Returns:
        `weight_entropy`, the mean over the view's covered examples of the weights' entropy, in
        nats, from 0 (one teacher decides) to log K (all alike); `effective_teachers`, the mean of
        its exponential, from 1 to K; `largest_weight`, their mean largest; and by client `weight`,
        their mean.
        Nothing where no example is covered.
    """
    weights = view.weights[:, view.weights.sum(0) > 0].double()
    if weights.shape[1] == 0:
        return {}
    return {
        "weight_entropy": float(entropy(weights, 0).mean()),
        "effective_teachers": float(effective_teachers(weights).mean()),
        "largest_weight": float(weights.amax(0).mean()),
        "weight": by_client(weights.mean(1)),
    }


def output_drift(view: RoundView) -> dict[str, Value]:
    """Tell how far the teachers' answers on the view's proxy examples are from each other.

    Args:
        view: Of one round.

    Returns:
        Means over the examples that somebody answered, each among those who did. `output_js` in
        [0, log K] nats: the headline, 0 iff all agree; `output_disagreement` in [0, 1];
        `output_kl` in nats, to the clients from their mean. By client `js_to_ensemble` and
        `kl_to_ensemble` in nats and `disagreement`, whose means over clients these are where all
        answered. Of a regression instead `output_deviation`, the root of the mean squared distance
        from what all say on average, and by client `deviation`. Nothing if there is no such
        example.
    """
    mask = view.teachers.mask
    answered = mask.any(0)
    if not answered.any():
        return {}
    if not view.teachers.soft:
        distances = squared_distances(view.teachers.logits.double(), mask)
        return {
            "output_deviation": float(distances.nanmean(0).nanmean().sqrt()),
            "deviation": by_client(distances.nanmean(1).sqrt()),
        }
    of_examples, of_clients = [], []
    at_once = EXAMPLES_AT_ONCE if view.teachers.sites == 1 else ROWS_AT_ONCE
    for examples in torch.split(answered.nonzero()[:, 0], at_once):
        log_probs = view.teachers.logits[:, examples].double().log_softmax(-1)
        there = mask[:, examples]
        measures = (kl_from_ensemble, kl_to_ensemble, disagreement_by_client)
        found = torch.stack([measure(log_probs, there) for measure in measures])  # [3, K, n]
        of_examples.append(found.nanmean(1))
        of_clients.append(found.nansum(2))
    js, kl, apart = torch.cat(of_examples, 1).mean(1).tolist()
    per_client = torch.stack(of_clients).sum(0) / mask.sum(1)  # NaN for who answered nothing
    return {
        "output_js": max(0.0, js),  # rounding may leave -1e-16 where all agree
        "output_disagreement": apart,
        "output_kl": max(0.0, kl),
        "js_to_ensemble": by_client(per_client[0]),
        "kl_to_ensemble": by_client(per_client[1]),
        "disagreement": by_client(per_client[2]),
    }


def output_matrices(
    view: RoundView, *, most_clients: Annotated[int, ">= 1"] = 32
) -> dict[str, Value]:
    """Tell how far the answers of each two teachers are from each other.

    Args:
        view: Of one round.
        most_clients: At most so many, spread evenly over the cohort, >= 1.

    Returns:
        `disagreement_matrix` and `js_matrix` [M, M], means over the examples that both answered,
        NaN where there is none; nothing in a round without answers, or of a regression.
    """
    chosen = some_of(len(view.teachers.client_ids), most_clients)
    answered = view.teachers.mask[chosen]
    if not answered.any() or not view.teachers.soft:
        return {}
    probs = view.teachers.logits[chosen].softmax(-1)
    ids = [view.teachers.client_ids[k] for k in chosen]
    matrices = {
        "disagreement_matrix": disagreement_matrix(probs, answered),
        "js_matrix": jensen_shannon_matrix(probs, answered),
    }
    return {
        name: Table(array(matrix), "client", "client", ids, ids)
        for name, matrix in matrices.items()
    }
