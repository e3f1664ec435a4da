"""The tables of a report: final numbers, differences, what it cost."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from sim.report.methods import Method
from sim.report.reading import Run
from sim.report.series import last, series_of
from sim.report.statistics import FEWEST_SEEDS, Difference, paired_difference, spread

NOTHING = "-"
MOST_PAIRED = 6
"""So many methods are compared each with each; of more, each with the first."""
NO_DIFFERENCE = "no difference"

MEASURES = {
    "student": ("student_accuracy", "", "student/accuracy"),
    "teacher ensemble": ("ensemble_accuracy", "", "strategy/ensemble_accuracy"),
    "best client": ("clients_accuracy", "max", "clients/accuracy/max"),
    "mean client": ("clients_accuracy", "mean", "clients/accuracy/mean"),
    "worst client": ("clients_accuracy", "min", "clients/accuracy/min"),
    "mean on private data": ("clients_private_accuracy", "mean", "clients/private_accuracy/mean"),
    "worst on private data": ("clients_private_accuracy", "min", "clients/private_accuracy/min"),
}
"""Where `result.json` has an accuracy, and in which series it is while a run is not over."""


@dataclass(frozen=True)
class Table:
    """Texts in rows; the first column names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def accuracies(run: Run) -> dict[str, float]:
    """Collect a run's accuracies after its last round, as shares, by what they are of.

    Args:
        run: Any run.

    Returns:
        What there is of MEASURES and of whatever else the strategy calls an accuracy.
    """
    found = series_of(run)
    values: dict[str, Any] = {}
    for name, (key, part, series) in MEASURES.items():
        value = (run.result or {}).get(key)
        value = value.get(part) if isinstance(value, Mapping) else value
        values[name] = last(found.get(series, {})) if run.result is None else value
    for name in found:
        if re.fullmatch(r"strategy/(?!ensemble_accuracy$).*accuracy.*", name):
            values[name.removeprefix("strategy/").replace("_", " ")] = last(found[name])
    numbers = {name: float(v) for name, v in values.items() if isinstance(v, int | float)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def final_table(methods: Sequence[Method]) -> Table:
    """Make the table of final accuracies in percent: mean ± standard deviation over seeds.

    Args:
        methods: At least one; runs that are not over count for nothing.

    Returns:
        A row for each method; a single run's has no deviations.
    """
    columns = [[accuracies(run) for run in method.finished] for method in methods]
    names = dict.fromkeys(name for runs in columns for run in runs for name in run)
    rows = []
    for method, runs in zip(methods, columns, strict=True):
        cells = [_mean([run[name] for run in runs if name in run], len(runs)) for name in names]
        rows.append([method.name, _count_of(method), *cells])
    return Table(["method", "seeds", *names], rows)


def _count_of(method: Method) -> str:
    over, begun = len(method.finished), len(method.runs)
    return str(over) if over == begun else f"{over} of {begun}"


def _mean(values: Sequence[float], wanted: int) -> str:
    if not values:
        return NOTHING
    found = spread([100 * value for value in values])
    text = f"{found.mean:.2f}" + (f" ± {found.deviation:.2f}" if found.count > 1 else "")
    return text + (f" (n={found.count})" if found.count < wanted else "")


@dataclass(frozen=True)
class Comparison:
    """A measure of two methods compared; numbers in points, a point is 0.01 of a share.

    Attributes:
        measure: Such as student.
        first: A method's name; the difference is first minus second.
        second: The other's.
        difference: In points.
    """

    measure: str
    first: str
    second: str
    difference: Difference

    @property
    def words(self) -> str:
        """What may be said of it."""
        found = self.difference
        if found.interval is None:
            few = f"too few seeds for an interval ({found.seeds} shared, {FEWEST_SEEDS} are needed)"
            return few if found.seeds else "no seed shared"
        if not found.found:
            return NO_DIFFERENCE
        return f"{found.mean:+.2f} points {between(found.interval)}"


def between(interval: tuple[float, float] | None) -> str:
    """Write an interval in points."""
    return NOTHING if interval is None else f"[{interval[0]:+.2f}, {interval[1]:+.2f}]"


def comparisons(methods: Sequence[Method]) -> list[Comparison]:
    """Compare methods seed by seed in each accuracy that both have.

    Args:
        methods: Any number of them.

    Returns:
        Each with each by measure, or with the first if they are more than MOST_PAIRED.
    """
    known = [{run.seed: accuracies(run) for run in method.finished} for method in methods]
    pairs = list(combinations(range(len(methods)), 2))
    if len(methods) > MOST_PAIRED:
        pairs = [(0, other) for other in range(1, len(methods))]
    made = []
    for measure in dict.fromkeys(n for runs in known for one in runs.values() for n in one):
        points = [
            {seed: 100 * one[measure] for seed, one in runs.items() if measure in one}
            for runs in known
        ]
        for a, b in pairs:
            if points[a] and points[b]:
                found = paired_difference(points[b], points[a])
                made.append(Comparison(measure, methods[b].name, methods[a].name, found))
    return made


def runs_table(methods: Sequence[Method]) -> Table:
    """List the runs: how far each came, what it scored, and what it cost.

    Args:
        methods: At least one.

    Returns:
        A row for each run, repeated ones included.
    """
    rows = []
    timed = any(
        _number(run.result, "simulated_time_s") is not None for m in methods for run in m.runs
    )
    for method in methods:
        for run in [*method.runs, *method.repeats]:
            found = accuracies(run)
            scores = [found.get("student"), found.get("teacher ensemble")]
            spent = [_bytes(value) for value in traffic(run)]
            times = [_seconds(_number(run.result, "wall_time_s"))]
            times += [_seconds(_number(run.result, "simulated_time_s"))] if timed else []
            state = _state(run) + (", repeats a seed, not counted" if run in method.repeats else "")
            cells = [method.name, str(run.seed), state]
            cells += [NOTHING if s is None else f"{100 * s:.2f}" for s in scores]
            rows.append([run.name, *cells, str(failure_count(run)), *spent, *times])
    head = [
        "run",
        "method",
        "seed",
        "state",
        "student",
        "teacher ensemble",
        "failures",
        "down",
        "up",
    ]
    return Table([*head, "wall time", *(["simulated time"] if timed else [])], rows)


def _state(run: Run) -> str:
    asked = run.config.get("rounds")
    of = f" of {asked}" if isinstance(asked, int) else ""
    return f"round {run.rounds}{of}" + (", not over" if run.result is None else "")


def failure_count(run: Run) -> int:
    """Count the unusable replies of the rounds that were written down."""
    return sum(n for line in run.lines if isinstance(n := line.get("failures"), int))


def traffic(run: Run) -> tuple[float | None, float | None]:
    """Tell the bytes down and up, of the rounds so far if the run is not over."""
    if run.result is not None:
        return _number(run.result, "request_bytes"), _number(run.result, "reply_bytes")
    found = series_of(run)
    both = (found.get(f"bytes/{way}") for way in ("request", "reply"))
    down, up = (None if series is None else sum(series.values()) for series in both)
    return down, up


def _number(record: Mapping[str, Any] | None, key: str) -> float | None:
    value = (record or {}).get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _bytes(count: float | None) -> str:
    if count is None:
        return NOTHING
    step = min(4, int(math.log10(count) // 3)) if count >= 1 else 0
    unit = ("B", "kB", "MB", "GB", "TB")[step]
    return f"{count / 1000**step:.{1 if step else 0}f} {unit}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"
