"""What a run cost, and the accuracy that it had for that: bytes sent, seconds of simulated time.

Without a server only what peers sent each other counts; `bytes` in `metrics.jsonl` has there what
the simulation itself sends and shows as well.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.report.drawing import Curve, Style
from sim.report.reading import Run
from sim.report.series import Series, mean_curve, series_of

REQUEST, REPLY, EDGES = "bytes/request", "bytes/reply", "strategy/edge_bytes"
CLOCK = "simulated_time_s"
PEERS_MEAN = "mean of peers' parameters"
"""What a run without a server has in place of a student; nobody has that network."""
ACCURACIES = {
    "student": "student/accuracy",
    "ensemble": "strategy/ensemble_accuracy",
    "mean client": "clients/accuracy/mean",
}
"""Whose accuracy is shown over the cost: of the first that a run has."""


@dataclass(frozen=True)
class Spenders:
    """Runs that one curve is drawn of.

    Attributes:
        label: For the legend.
        style: Colour and dashes.
        over: The series of the runs that are over.
        going: Of those that are not, which have a curve each.
    """

    label: str
    style: Style
    over: Sequence[Mapping[str, Series]]
    going: Sequence[Mapping[str, Series]] = ()


def cost_curves(spenders: Sequence[Spenders]) -> list[tuple[str, str, list[Curve]]]:
    """Draw accuracy over what was spent until then.

    Args:
        spenders: At least one; with several runs that are over the curve goes through the mean
            accuracy at the mean cost after each round that all of them have.

    Returns:
        (title, x label, curves) over megabytes, and over simulated seconds where there are any.
    """
    costs: dict[tuple[str, str], Callable[[Mapping[str, Series]], Series]] = {
        ("traffic", "megabytes sent"): megabytes,
        ("simulated time", "simulated seconds"): lambda found: found.get(CLOCK, {}),
    }
    panels = []
    for (what, along), cost in costs.items():
        runs = [run for each in spenders for run in (*each.over, *each.going)]
        kinds = {whose_accuracy(run) for run in runs if _paid(run, cost)}
        lines = [line for each in spenders for line in _curves(each, cost)]
        if lines:
            whose = f"{kinds.pop()} " if len(kinds) == 1 else ""
            panels.append((f"{whose}accuracy over {what}", along, lines))
    return panels


def _curves(each: Spenders, cost: Callable[[Mapping[str, Series]], Series]) -> list[Curve]:
    over, going = ([_paid(run, cost) for run in runs] for runs in (each.over, each.going))
    over = [pairs for pairs in over if pairs]
    drawn = []
    rounds = sorted(set.intersection(*map(set, over))) if over else []
    if rounds:
        x, y = (np.array([[pairs[n][i] for n in rounds] for pairs in over]) for i in (0, 1))
        drawn.append(mean_curve(x.mean(0), y, each.style, each.label))
    points = [np.array([*pairs.values()]).T for pairs in going if pairs]
    return drawn + [Curve(x, y, style=each.style, label=each.label, faint=True) for x, y in points]


def _paid(
    found: Mapping[str, Series], cost: Callable[[Mapping[str, Series]], Series]
) -> dict[int, tuple[float, float]]:
    """Tell what was spent until the end of each round and the accuracy then, if both are known."""
    each = cost(found)
    until = dict(zip(each, np.cumsum([*each.values()]), strict=True))
    accuracy = found.get(ACCURACIES.get(whose_accuracy(found), ""), {})
    both = {n: (float(until[n]), value) for n, value in accuracy.items() if n in until}
    return {n: pair for n, pair in both.items() if np.isfinite(pair).all()}


def whose_accuracy(found: Mapping[str, Series]) -> str:
    """Name whose accuracy is shown over the cost, of ACCURACIES; "" if none was measured.

    Without a server the student is PEERS_MEAN, and what counts is what the peers have.
    """
    names = [name for name, series in ACCURACIES.items() if series in found]
    return names[-1 if EDGES in found else 0] if names else ""


def megabytes(found: Mapping[str, Series]) -> Series:
    """Return what was sent in each round, both ways; without a server between peers."""
    if EDGES in found:
        return {n: sent / 1e6 for n, sent in found[EDGES].items()}
    request, reply = found.get(REQUEST, {}), found.get(REPLY, {})
    return {n: (request[n] + reply[n]) / 1e6 for n in request if n in reply}


def traffic(run: Run) -> tuple[float | None, float | None, float | None]:
    """Tell the bytes down, up, and between peers; of the rounds so far if the run is not over."""
    names = (("request_bytes", REQUEST), ("reply_bytes", REPLY), ("edge_bytes", EDGES))
    down, up, edges = (_total(run, key, series) for key, series in names)
    return down, up, edges


def simulated_time(run: Run) -> float | None:
    """Tell the simulated seconds, of the rounds so far if the run is not over."""
    return _total(run, CLOCK, CLOCK)


def _total(run: Run, key: str, series: str) -> float | None:
    if (known := number(run.result, key)) is not None:
        return known
    found = series_of(run).get(series)
    return None if found is None else float(np.nansum([*found.values()]))


def number(record: Mapping[str, Any] | None, key: str) -> float | None:
    """Return a finite number of a record; None if there is none."""
    value = (record or {}).get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def in_bytes(count: float | None) -> str | None:
    """Write bytes in a unit that suits them."""
    if count is None:
        return None
    step = min(4, int(math.log10(count) // 3)) if count >= 1 else 0
    unit = ("B", "kB", "MB", "GB", "TB")[step]
    return f"{count / 1000**step:.{1 if step else 0}f} {unit}"


def in_time(seconds: float | None) -> str | None:
    """Write seconds in a unit that suits them."""
    if seconds is None:
        return None
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"
