"""Probes: a function from a round's view to named numbers. They read, and change nothing.

A view shows a fixed subset of the distilled proxy examples, `strategy.probe_examples` of them.
"""

import torch

from clients.teachers import RoundView
from sim.drift import disagreement, entropy, jensen_shannon

EXAMPLES_AT_ONCE = 16
"""How many examples' answers are held in double precision: 13 MB for 1,000 clients, 100 classes."""


def trust(view: RoundView) -> dict[str, float]:
    """Tell how evenly trust is spread over teachers.

    Args:
        view: Of one distillation round.

    Returns:
        `weight_entropy`, the mean over the view's covered examples of the weights' entropy, in
        nats, from 0 (one teacher decides) to log K (all alike); and `largest_weight`, their mean
        largest.
        Nothing where no example is covered.
    """
    weights = view.weights[:, view.weights.sum(0) > 0].double()
    if weights.shape[1] == 0:
        return {}
    return {
        "weight_entropy": float(entropy(weights, 0).mean()),
        "largest_weight": float(weights.amax(0).mean()),
    }


def output_drift(view: RoundView) -> dict[str, float]:
    """Tell how far the teachers' answers on the view's proxy examples are from each other.

    Args:
        view: Of one distillation round.

    Returns:
        `output_disagreement` in [0, 1] and `output_js` in [0, log K] nats, means over the examples
        that every teacher answered; nothing if there is none.
    """
    answered = view.teachers.mask.all(0)
    if not answered.any():
        return {}
    apart, divergence = [], []
    for examples in torch.split(answered.nonzero()[:, 0], EXAMPLES_AT_ONCE):
        probs = view.teachers.logits[:, examples].double().softmax(-1)
        apart.append(disagreement(probs))
        divergence.append(jensen_shannon(probs))
    return {
        "output_disagreement": float(torch.cat(apart).mean()),
        "output_js": float(torch.cat(divergence).mean()),
    }
