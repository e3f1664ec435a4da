"""What a reader wants to know first of runs: findings in sentences, before any table."""

from collections.abc import Sequence

import numpy as np

from sim.report.failures import Reason
from sim.report.methods import Method
from sim.report.reading import Run
from sim.report.series import last, series_of
from sim.report.tables import Comparison, accuracies, failure_count

STUDENT, ENSEMBLE, BEST = "student", "teacher ensemble", "best client"
CONFIDENT = 0.05
"""From this mean calibration error on a model is said to be sure of itself, or not enough."""


def findings(
    methods: Sequence[Method],
    runs: Sequence[Run],
    missing: int,
    reasons: Sequence[Reason],
    compared: Sequence[Comparison] = (),
    drifting: Sequence[str] = (),
) -> list[str]:
    """Say what is found of runs: who is best, below whom, who drifts, what failed, who is too sure.

    Args:
        methods: At least one; of runs that are not over nothing is said.
        runs: All of them.
        missing: How many jobs of a sweep failed.
        reasons: Of replies that could not be used, the most frequent first.
        compared: Methods with each other.
        drifting: Sentences on clients that stand out.

    Returns:
        Sentences, of one method without its name.
    """
    found = []
    if missing:
        found.append(f"{missing} job{'s' * (missing > 1)} of the sweep failed and {_are(missing)}"
                     " missing below.")  # fmt: skip
    told = [_of_student(method, methods) for method in methods]
    found += filter(None, [_best(methods, compared), *told, *drifting])
    lost = sum(map(failure_count, runs))
    if lost and reasons:
        first = reasons[0]
        found.append(
            f"{lost} repl{'ies' if lost > 1 else 'y'} of clients could not be used, most often for "
            f"this reason ({first.count}): {first.text}."
        )
    return [*found, *filter(None, (_of_confidence(method, methods) for method in methods))]


def _are(number: int) -> str:
    return "are" if number > 1 else "is"


def _named(method: Method, methods: Sequence[Method]) -> str:
    return f"{method.name}: the " if len(methods) > 1 else "The "


def _mean(method: Method, name: str) -> float | None:
    values = [found[name] for run in method.finished if name in (found := accuracies(run))]
    return float(np.mean(values)) if values else None


def _best(methods: Sequence[Method], compared: Sequence[Comparison]) -> str:
    """Name the method with the best student, and over how many others its lead was found."""
    known = {method.name: _mean(method, STUDENT) for method in methods}
    scored = {name: value for name, value in known.items() if value is not None}
    seeds = [{run.seed for run in method.finished} for method in methods if method.name in scored]
    if len(scored) < 2 or any(own != seeds[0] for own in seeds):
        return ""  # means of unlike seeds say nothing
    name = max(scored, key=lambda each: scored[each])
    own = [one for one in compared if one.measure == STUDENT and name in (one.first, one.second)]
    found = sum(one.difference.found for one in own)
    lead = f"a difference to {found} of the {len(own)} that it is compared with is found"
    return f"The best mean student is that of {name}, {100 * scored[name]:.1f} %; {lead}."


def _of_student(method: Method, methods: Sequence[Method]) -> str:
    """Compare a student with its teachers."""
    student = _mean(method, STUDENT)
    if student is None:
        return ""
    others = {"its ensemble": _mean(method, ENSEMBLE), "the best client": _mean(method, BEST)}
    said = [
        f"{_apart(100 * (student - value))} {who} ({100 * value:.1f} %)"
        for who, value in others.items()
        if value is not None
    ]
    if not said:
        return ""
    return f"{_named(method, methods)}student is at {100 * student:.1f} %, {' and '.join(said)}."


def _apart(points: float) -> str:
    if abs(points) < 0.05:
        return "level with"
    return f"{abs(points):.1f} points {'below' if points < 0 else 'above'}"


def _of_confidence(method: Method, methods: Sequence[Method]) -> str:
    """Say whose confidence is far from its accuracy, if anybody's is."""
    series = {"ensemble": "probes/ensemble_ece", "student": "probes/student_ece"}
    errors = {}
    for who, name in series.items():
        ends = [last(series_of(run).get(name, {})) for run in method.finished]
        known = [end for end in ends if end is not None]
        if known and (error := float(np.mean(known))) >= CONFIDENT:
            errors[who] = error
    if not errors:
        return ""
    told = " and ".join(f"the {who} by {100 * error:.1f} points" for who, error in errors.items())
    begin = f"{method.name}: c" if len(methods) > 1 else "C"
    return f"{begin}onfidence is far from accuracy: {told} (calibration error)."
