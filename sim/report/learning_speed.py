"""The table of how fast methods learn, and of what their accuracy costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sim.report.costs import ACCURACIES, CLOCK, megabytes, whose_accuracy
from sim.report.methods import Method
from sim.report.series import Series, series_of
from sim.report.tables import NOTHING, Table, of_seeds

SMOOTHING = 0.9
"""Share of the last value in the exponential moving average, which begins with the first."""

COLUMNS = {
    "best": "best",
    "best_round": "in round",
    "smoothed": "smoothed",
    "per_megabyte": "points per megabyte",
    "per_second": "points per simulated second",
}
ROUNDS = ("best_round", "reached")


@dataclass(frozen=True)
class Progress:
    """What one run's accuracy was on its way, in percent where it is one.

    Attributes:
        whose: The student's, the ensemble's or the mean client's, as over the cost.
        best: The highest.
        best_round: The first round that had it.
        smoothed: The exponential moving average after the last round.
        reached: The first round with the target; None if none has it, or there is no target.
        per_megabyte: The last accuracy by all that was sent; None if nothing was.
        per_second: By simulated seconds; None without a clock.
    """

    whose: str
    best: float
    best_round: int
    smoothed: float
    reached: int | None
    per_megabyte: float | None
    per_second: float | None


def progress_of(found: Mapping[str, Series], target: float | None) -> Progress | None:
    """Follow a run's accuracy.

    Args:
        found: The run's series.
        target: A share in (0, 1], or None.

    Returns:
        What it did; None if no accuracy was measured.
    """
    whose = whose_accuracy(found)
    measured = {n: 100 * v for n, v in found.get(ACCURACIES.get(whose, ""), {}).items() if v == v}
    if not measured:
        return None
    best = max(measured, key=lambda n: (measured[n], -n))
    values = [*measured.values()]
    smoothed = values[0]
    for value in values[1:]:
        smoothed = SMOOTHING * smoothed + (1 - SMOOTHING) * value
    wanted = np.inf if target is None else 100 * target - 1e-9
    reached = [n for n, value in measured.items() if value >= wanted]
    sent, seconds = (
        float(np.nansum([*s.values()])) for s in (megabytes(found), found.get(CLOCK, {}))
    )
    return Progress(
        whose=whose,
        best=measured[best],
        best_round=best,
        smoothed=smoothed,
        reached=min(reached, default=None),
        per_megabyte=values[-1] / sent if sent else None,
        per_second=values[-1] / seconds if seconds else None,
    )


def progress_table(methods: Sequence[Method], target: float | None = None) -> Table:
    """Make the table of progress: means ± standard deviations over seeds.

    Args:
        methods: At least one; runs that are not over count for nothing.
        target: An accuracy in (0, 1]: rounds until it was reached are counted.

    Returns:
        A row for each method that measured an accuracy; columns that nobody has are left out.
    """
    columns = dict(COLUMNS)
    if target is not None:
        columns["reached"] = f"rounds to {100 * target:g} %"
    rows = []
    for method in methods:
        runs = [each for run in method.finished if (each := progress_of(series_of(run), target))]
        values = [[v for each in runs if (v := getattr(each, c)) is not None] for c in columns]
        if runs:
            cells = [
                of_seeds(each, len(runs), whole=column in ROUNDS)
                for column, each in zip(columns, values, strict=True)
            ]
            rows.append([method.name, runs[0].whose, *cells])
    head = ["method", "whose", *columns.values()]
    told = [*columns].index("reached") + 2 if target is not None else None  # also if nobody did
    kept = [k for k in range(len(head)) if k == told or any(row[k] != NOTHING for row in rows)]
    return Table([head[k] for k in kept], [[row[k] for k in kept] for row in rows])
