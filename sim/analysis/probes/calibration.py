"""The probe of confidence against correctness."""

from torch import Tensor

from clients.messages.round_views import RoundView
from sim.analysis.drift import Reliability, expected_calibration_error, reliability
from sim.analysis.probes.values import Curve, Numbers, Value, array, by_client


def calibration(view: RoundView) -> dict[str, Value]:
    """Tell whether teachers, ensemble and student are right as often as they are sure.

    Args:
        view: Of one round.

    Returns:
        Over the view's examples that somebody covers, of each teacher those that it answered:
        `student_ece` and `ensemble_ece` in [0, 1], expected calibration errors in 15 bins;
        `confidence_right` and `confidence_wrong`, the mean confidence of the teachers' right and
        wrong answers, where there are such; by client `ece` in [0, 1] and `overconfidence` in
        [-1, 1], mean confidence less accuracy; and the figure `reliability`. Without a student
        none of its own, without labels nothing. The ensemble's confidence is that of its soft
        labels, at the strategy's temperature.
    """
    covered = view.weights.sum(0) > 0
    if view.labels is None or not covered.any():
        return {}
    labels, answered = view.labels[covered], view.teachers.mask[:, covered]
    confidence, votes = view.teachers.logits[:, covered].softmax(-1).max(-1)
    correct = votes == labels
    clients = reliability(confidence, correct, answered)
    ones = {"ensemble": _of_one(view.targets[covered], labels)}
    if view.student_after is not None:
        ones = {"student": _of_one(view.student_after[covered].softmax(-1), labels), **ones}
    too_sure = (confidence.double() - correct.double()) * answered
    found: dict[str, Value] = {
        **{f"{name}_ece": float(expected_calibration_error(one)) for name, one in ones.items()},
        "ece": by_client(expected_calibration_error(clients)),
        "overconfidence": by_client(too_sure.sum(1) / answered.sum(1)),
        "reliability": Curve(
            "confidence",
            "accuracy",
            {
                **{name: _line(one) for name, one in ones.items()},
                "clients": _line(reliability(confidence[answered][None], correct[answered][None])),
            },
            diagonal=True,
        ),
    }
    for name, these in (("confidence_right", correct), ("confidence_wrong", ~correct)):
        if (said := these & answered).any():
            found[name] = float(confidence[said].double().mean())
    return found


def _of_one(probs: Tensor, labels: Tensor) -> Reliability:
    confidence, votes = probs.max(-1)
    return reliability(confidence[None], (votes == labels)[None])


def _line(curve: Reliability) -> tuple[Numbers, Numbers]:
    some = curve.counts[0] > 0
    return array(curve.confidence[0][some]), array(curve.accuracy[0][some])
