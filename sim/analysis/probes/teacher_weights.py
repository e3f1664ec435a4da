"""The teacher audit: who taught what, and whether they were right."""

import torch

from clients.messages.round_views import RoundView
from sim.analysis.drift import (
    oracle_correct,
    rank_correlation,
    recall,
    weight_mass,
    wrong_but_confident,
)
from sim.analysis.probes.values import Table, Value, array, by_client, some_of


def teacher_audit(
    view: RoundView, *, confident: float = 0.9, most_clients: int = 32
) -> dict[str, Value]:
    """Compare trust with who was right.

    Args:
        view: Of one round.
        confident: From which probability on an answer is sure, in [0, 1].
        most_clients: How many clients the figures show, spread evenly over the cohort, >= 1.

    Returns:
        Shares of the view's covered examples: `ensemble_right`; `student_right` after the lesson;
        `oracle_right`, where some teacher is right, what choosing one teacher for each example
        could reach; an ensemble may be right where none is;
        `right_weight`, the mean trust in teachers that are right. Of the answers to them:
        `wrong_but_confident`, the share that is wrong and sure, in all and by client, and
        `weight_correctness_spearman` in [-1, 1] where it is defined. Figures `weight_mass` and
        `teacher_error`, client x class. Nothing without labels, or if nothing is covered.
    """
    covered = view.weights.sum(0) > 0
    if view.labels is None or not covered.any():
        return {}
    labels, weights = view.labels[covered], view.weights[:, covered]
    mask, num_classes = view.teachers.mask[:, covered], view.targets.shape[1]
    confidence, votes = view.teachers.logits[:, covered].softmax(-1).max(-1)
    correct = (votes == labels) & mask
    fooled = wrong_but_confident(confidence, correct, confident) & mask
    rows = some_of(len(votes), most_clients)
    ids = [view.teachers.client_ids[k] for k in rows]
    error = 1 - recall(votes[rows], labels, num_classes, mask[rows])
    found: dict[str, Value] = {
        "ensemble_right": _share(view.targets[covered].argmax(-1) == labels),
        "oracle_right": _share(oracle_correct(correct)),
        "right_weight": float((weights * correct).sum(0).double().mean()),
        "wrong_but_confident": float(fooled.sum() / mask.sum()),
        "wrong_but_confident_rate": by_client(fooled.sum(1) / mask.sum(1)),
        "weight_mass": Table(
            array(weight_mass(weights, labels, num_classes)[rows]), "client", "class", ids
        ),
        "teacher_error": Table(array(error), "client", "class", ids),
    }
    if view.student_after is not None:
        found["student_right"] = _share(view.student_after[covered].argmax(-1) == labels)
    if (correlation := rank_correlation(weights[mask], correct[mask])) is not None:
        found["weight_correctness_spearman"] = correlation
    return found


def _share(right: torch.Tensor) -> float:
    return float(right.double().mean())
