"""Probes: a function from a round's view to named numbers. They read, and change nothing."""

from clients.teachers import RoundView
from sim.drift import disagreement, entropy, jensen_shannon


def trust(view: RoundView) -> dict[str, float]:
    """Tell how evenly trust is spread over teachers.

    Args:
        view: Of one distillation round.

    Returns:
        `weight_entropy`, the mean over covered examples of the weights' entropy, in nats, from 0
        (one teacher decides) to log K (all alike); and `largest_weight`, their mean largest.
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
    """Tell how far the teachers' answers on the proxy set are from each other.

    Args:
        view: Of one distillation round.

    Returns:
        `output_disagreement` in [0, 1] and `output_js` in [0, log K] nats, means over the examples
        that every teacher answered; nothing if there is none.
    """
    answered = view.teachers.mask.all(0)
    if not answered.any():
        return {}
    probs = view.teachers.logits[:, answered].double().softmax(-1)
    return {
        "output_disagreement": float(disagreement(probs).mean()),
        "output_js": float(jensen_shannon(probs).mean()),
    }
