"""Probes of trust, and of drift in output space.

A view shows a fixed subset of the distilled proxy examples, `strategy.probe_examples` of them.
"""

import torch

from clients.teachers import RoundView
from sim.drift import (
    disagreement_by_client,
    disagreement_matrix,
    effective_teachers,
    entropy,
    jensen_shannon,
    jensen_shannon_matrix,
    kl_from_ensemble,
    kl_to_ensemble,
)
from sim.probes.values import Table, Value, array, some_of

EXAMPLES_AT_ONCE = 16
"""How many examples' answers are held in double precision: 13 MB for 1,000 clients, 100 classes."""


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
        "weight": array(weights.mean(1)),
    }


def output_drift(view: RoundView) -> dict[str, Value]:
    """Tell how far the teachers' answers on the view's proxy examples are from each other.

    Args:
        view: Of one round.

    Returns:
        Means over the examples that every teacher answered. `output_js` in [0, log K] nats: the
        headline, 0 iff all agree; `output_disagreement` in [0, 1]; `output_kl` in nats, to the
        clients from their mean. By client `js_to_ensemble` and `kl_to_ensemble` in nats and
        `disagreement`, whose means over clients these are. Nothing if there is no such example.
    """
    answered = view.teachers.mask.all(0)
    if not answered.any():
        return {}
    divergence, by_client = [], []
    for examples in torch.split(answered.nonzero()[:, 0], EXAMPLES_AT_ONCE):
        log_probs = view.teachers.logits[:, examples].double().log_softmax(-1)
        divergence.append(jensen_shannon(log_probs.exp()))
        measures = (kl_from_ensemble, kl_to_ensemble, disagreement_by_client)
        by_client.append(torch.stack([measure(log_probs).sum(1) for measure in measures]))
    js, kl, apart = torch.stack(by_client).sum(0) / answered.sum()
    return {
        "output_js": float(torch.cat(divergence).mean()),
        "output_disagreement": float(apart.mean()),
        "output_kl": float(kl.mean()),
        "js_to_ensemble": array(js),
        "kl_to_ensemble": array(kl),
        "disagreement": array(apart),
    }


def output_matrices(view: RoundView, *, most_clients: int = 32) -> dict[str, Value]:
    """Tell how far the answers of each two teachers are from each other.

    Args:
        view: Of one round.
        most_clients: At most so many, spread evenly over the cohort, >= 1.

    Returns:
        `disagreement_matrix` and `js_matrix` [M, M], means over the examples that all of them
        answered; nothing if there is none.
    """
    chosen = some_of(len(view.teachers.client_ids), most_clients)
    answered = view.teachers.mask[chosen].all(0)
    if not answered.any():
        return {}
    probs = view.teachers.logits[chosen][:, answered].softmax(-1)
    ids = [view.teachers.client_ids[k] for k in chosen]
    matrices = {
        "disagreement_matrix": disagreement_matrix(probs),
        "js_matrix": jensen_shannon_matrix(probs),
    }
    return {
        name: Table(array(matrix), "client", "client", ids, ids)
        for name, matrix in matrices.items()
    }
