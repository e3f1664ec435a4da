"""The tables of a report: final numbers, differences, what it cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from sim.report.costs import EDGES, PEERS_MEAN, in_bytes, in_time, number, simulated_time, traffic
from sim.report.methods import Method
from sim.report.reading import Run
from sim.report.series import last, series_of
from sim.report.statistics import FEWEST_SEEDS, Difference, paired_difference, spread

NOTHING = "-"
MOST_PAIRED = 6
"""So many methods are compared each with each; of more, each with the first."""
NO_DIFFERENCE = "no difference"
NO_SPREAD = "no spread"

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


PROBED = {
    "clients/own_accuracy/mean": "mean on own classes",
    "clients/own_accuracy/min": "worst on own classes",
    "clients/own_examples_accuracy/mean": "mean on own examples",
    "clients/own_examples_accuracy/min": "worst on own examples",
    "probes/student_own_examples_accuracy": "student on own examples",
    "probes/student_own_examples_accuracy_worst": "student on own examples, worst",
    "probes/student_own_accuracy": "student on own classes",
    "probes/student_own_accuracy_worst": "student on own classes, worst",
    "probes/oracle_right": "oracle of teachers",
}
"""What probes find, and its name: accuracies on each client's own classes, and what choosing one
teacher for each probed proxy example could reach."""


@dataclass(frozen=True)
class Table:
    """Texts in rows; the first column names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def accuracies(run: Run) -> dict[str, float]:
    """Collect a run's accuracies, or what its task is measured by, after its last round.

    Args:
        run: Any run.

    Returns:
        As shares, by what they are of: what there is of MEASURES and of whatever else the strategy
        calls an accuracy. Without a server the student is called what it is, PEERS_MEAN.
    """
    found = series_of(run)
    values: dict[str, Any] = {}
    measure = (run.result or {}).get("measure", "accuracy")
    for name, (key, part, series) in MEASURES.items():
        key, series = (text.replace("accuracy", measure) for text in (key, series))
        value = (run.result or {}).get(key)
        value = value.get(part) if isinstance(value, Mapping) else value
        values[name] = last(found.get(series, {})) if run.result is None else value
    for series in found:
        name = series.removeprefix("strategy/")
        # What clients have too is Flower's mean of it, by examples: it would be there twice.
        own = name not in (f"ensemble_{measure}", series) and f"clients/{name}/mean" not in found
        if own and measure in name:
            values[name.replace("_", " ")] = last(found[series])
    values |= {name: last(found[series]) for series, name in PROBED.items() if series in found}
    if EDGES in found:
        values[PEERS_MEAN] = values.pop("student")
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
        values = [[100 * run[name] for run in runs if name in run] for name in names]
        cells = [of_seeds(each, len(runs)) for each in values]
        rows.append([method.name, _count_of(method), *cells])
    return Table(["method", "seeds", *names], rows)


def _count_of(method: Method) -> str:
    over, begun = len(method.finished), len(method.runs)
    return str(over) if over == begun else f"{over} of {begun}"


def of_seeds(values: Sequence[float], wanted: int, *, whole: bool = False) -> str:
    """Write mean ± standard deviation of the seeds that have a value, and how many if not all.

    Args:
        values: Of those that have one.
        wanted: How many seeds there are.
        whole: Whether the values are whole numbers: rounds, which have no hundredths.

    Returns:
        The cell.
    """
    if not values:
        return NOTHING
    found = spread(values)
    digits = 2 if not whole else 1 if found.count > 1 else 0
    text = f"{found.mean:.{digits}f}"
    text += f" ± {found.deviation:.{digits}f}" if found.count > 1 else ""
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
        said = "with every seed" if found.alike else between(found.interval)
        return f"{found.mean:+.2f} points {said}"


def between(interval: tuple[float, float] | None) -> str:
    """Write an interval in points."""
    if interval is None:
        return NOTHING
    if interval[0] == interval[1]:
        return NO_SPREAD
    return f"[{interval[0]:+.2f}, {interval[1]:+.2f}]"


def judged(compared: Sequence[Comparison]) -> int:
    """Count the comparisons that chance can decide: those with an interval that has a width."""
    found = (one.difference for one in compared)
    return sum(one.interval is not None and not one.alike for one in found)


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


def without_equal(compared: Sequence[Comparison]) -> tuple[list[Comparison], str]:
    """Take out what two methods share by their making, such as clients: equal with every seed.

    Args:
        compared: Methods with each other.

    Returns:
        The others, and of students, or else of mean clients, all, for that they are equal is news;
        a sentence on what was taken out, or nothing.
    """
    news = "student" if any(one.measure == "student" for one in compared) else "mean client"
    kept: list[Comparison] = []
    equal: dict[str, list[str]] = {}
    for one in compared:
        if one.difference.alike and not one.difference.found and one.measure != news:
            equal.setdefault(f"{one.first} and {one.second} in", []).append(one.measure)
        else:
            kept.append(one)
    parts = [f"{pair} {', '.join(measures)}" for pair, measures in equal.items()]
    return kept, f"Equal with every seed: {'; '.join(parts)}." if parts else ""


def difference_table(compared: Sequence[Comparison]) -> Table:
    """List comparisons: means and both intervals in points, and what may be said."""
    head = ["measure", "first", "second", "seeds", "mean", "bootstrap", "Student's t", "so"]
    rows = [
        [
            *(one.measure, one.first, one.second, str(one.difference.seeds)),
            f"{one.difference.mean:+.2f}" if one.difference.seeds else NOTHING,
            *(between(one.difference.bootstrap), between(one.difference.student_t), one.words),
        ]
        for one in compared
    ]
    return Table(head, rows)


def runs_table(methods: Sequence[Method]) -> Table:
    """List the runs: how far each came, what it scored, and what it cost.

    Args:
        methods: At least one.

    Returns:
        A row for each run, repeated ones included. Accuracies and costs that no run has are left
        out; the mean client's accuracy is there if a run has neither student nor ensemble.
    """
    columns = ["student", "teacher ensemble", "mean client", "failures", "down", "up"]
    columns += ["between peers", "wall time", "simulated time"]
    rows = [
        ([run.name, method.name, str(run.seed), _state(run, method)], _cells(run))
        for method in methods
        for run in [*method.runs, *method.repeats]
    ]
    kept = [name for name in columns if any(cells.get(name) for _, cells in rows)]
    table = [[*about, *(cells.get(name) or NOTHING for name in kept)] for about, cells in rows]
    return Table(["run", "method", "seed", "state", *kept], table)


def _cells(run: Run) -> dict[str, str | None]:
    found = accuracies(run)
    shown = ["student", "teacher ensemble"]
    shown += [] if found.keys() & set(shown) else ["mean client"]
    down, up, edges = map(in_bytes, traffic(run))
    return {
        **{name: f"{100 * found[name]:.2f}" for name in shown if name in found},
        **{"failures": str(failure_count(run)), "down": down, "up": up, "between peers": edges},
        "wall time": in_time(number(run.result, "wall_time_s")),
        "simulated time": in_time(simulated_time(run)),
    }


def _state(run: Run, method: Method) -> str:
    asked = run.config.get("rounds")
    of = f" of {asked}" if isinstance(asked, int) else ""
    over = "" if run.result is not None else ", not over"
    repeated = ", repeats a seed, not counted" if run in method.repeats else ""
    return f"round {run.rounds}{of}{over}{repeated}"


def failure_count(run: Run) -> int:
    """Count the unusable replies of the rounds that were written down."""
    return sum(n for line in run.lines if isinstance(n := line.get("failures"), int))
