"""Numbers over rounds: from the lines of a run to curves of a run or of a method."""

import warnings
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from sim.report.drawing import Curve, Floats, Style
from sim.report.methods import Method
from sim.report.reading import Run, flat

Series = dict[int, float]
"""A number by round. What is not finite is NaN; in a file it is null."""


@cache  # 40 runs of 300 rounds: 6 s in place of 10 for the whole report
def series_of(run: Run) -> Mapping[str, Series]:
    """Collect all numbers of a run's lines.

    Args:
        run: Any run.

    Returns:
        Series by name, such as `student/accuracy`, `probes/output_js`; what is no number is left
        out, and a series may lack rounds.
    """
    found: dict[str, Series] = {}
    for line in run.lines:
        for name, value in flat(line, "/").items():
            if value is None or (isinstance(value, int | float) and name != "round"):
                number = np.nan if value is None else float(value)
                finite = number if np.isfinite(number) else np.nan
                found.setdefault(name, {})[line["round"]] = finite
    return {name: series for name, series in found.items() if last(series) is not None}


def last(series: Series) -> float | None:
    """Return the value of the last round in which there is one; None for no series."""
    finite = [value for value in series.values() if np.isfinite(value)]
    return finite[-1] if finite else None


def curve(series: Series, style: Style, label: str, faint: bool = False) -> Curve:
    """Make a run's series a curve."""
    x, y = np.array([*series.keys()], float), np.array([*series.values()], float)
    return Curve(x, y, style=style, label=label, faint=faint)


def banded(all_series: Mapping[str, Series], name: str, style: Style, label: str) -> Curve:
    """Make quantiles over clients one curve: the median in the quartiles in the extremes.

    Args:
        all_series: Of a run.
        name: Such as `clients/accuracy`, of which there is at least the median.
        style: Colour and dashes.
        label: For the legend.

    Returns:
        The median's curve with the bands that there are.
    """
    middle = curve(all_series[f"{name}/median"], style, label)
    bands = []
    for low, high in (("min", "max"), ("q25", "q75")):
        if f"{name}/{low}" in all_series and f"{name}/{high}" in all_series:
            ends = (all_series[f"{name}/{low}"], all_series[f"{name}/{high}"])
            bands.append(tuple(_at(end, middle.x) for end in ends))
    return Curve(middle.x, middle.y, [(low, high) for low, high in bands], style, label=label)


def method_curves(
    runs: Sequence[tuple[Run, Mapping[str, Series]]], method: Method, name: str, style: Style
) -> list[Curve]:
    """Draw a method's runs together.

    Args:
        runs: All runs with their series.
        method: Whose runs to take.
        name: Of the series.
        style: Colour and dashes of the method.

    Returns:
        The mean over the finished runs with a band of one standard deviation where there are
        several, and a faint curve for each run that is not over.
    """
    mine = [(run, found[name]) for run, found in runs if run in method.runs and name in found]
    over = [series for run, series in mine if run.result is not None]
    drawn = [curve(s, style, method.name, faint=True) for run, s in mine if run.result is None]
    if over:
        x = np.array(sorted({number for series in over for number in series}), float)
        values = np.array([_at(series, x) for series in over])
        drawn.insert(0, mean_curve(x, values, style, method.name))
    return drawn


def mean_curve(x: Floats, values: Floats, style: Style, label: str) -> Curve:
    """Draw several runs as one curve.

    Args:
        x: [P] ascending.
        values: [runs, P]; NaN stands for what a run does not have.
        style: Colour and dashes.
        label: For the legend.

    Returns:
        Their mean, with a band of one standard deviation if there are several runs.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a round without any or with one value
        mean, apart = np.nanmean(values, 0), np.nanstd(values, 0, ddof=1)
    bands = [(mean - apart, mean + apart)] if len(values) > 1 else []
    return Curve(x, mean, bands, style, label=label)


def _at(series: Series, x: Floats) -> Floats:
    return np.array([series.get(int(number), np.nan) for number in x])
