"""Early stopping of a run: by a number of its rounds, or as whoever is told of them asks."""

import difflib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from sim.errors import NoSuchNumber

Each = Callable[[dict[str, float]], object]
"""Told of a round's numbers, by TensorBoard's tags, as it ends; True = the run may end there."""


def stop_reason(
    values: Sequence[float],
    *,
    above: float | None = None,
    below: float | None = None,
    patience: int | None = None,
    mode: str = "max",
) -> str:
    """Say why a run may stop after the last of these rounds; "" = it may not.

    Args:
        values: The metric in each round that has it, the last at the end.
        above: Stop once it is greater; None = never for that.
        below: Stop once it is less; None = never for that.
        patience: Stop once so many rounds in a row brought no new best one, >= 1; None = never.
        mode: Whether the best is the greatest, "max", or the least, "min".

    Returns:
        Such as "0.91 is above 0.9".
    """
    if not values:
        return ""
    last = values[-1]
    if above is not None and last > above:
        return f"{last:.4g} is above {above:g}"
    if below is not None and last < below:
        return f"{last:.4g} is below {below:g}"
    best = (max if mode == "max" else min)(values)
    since = len(values) - 1 - values.index(best)
    if patience is not None and since >= patience:
        return f"no better than {best:.4g} for {since} rounds"
    return ""


SECTIONS, PLAIN = (
    ("student", "strategy", "clients", "probes", "bytes"),
    ("round", "failures", "simulated_time_s"),
)
"""What the tags of a round's numbers begin with, and those that are not in a section."""

MOST_NAMES = 12
"""Most that an error lists."""


class EarlyStop:
    """Looks at each round as it ends, tells callbacks, and says whether the run is to end there.

    Attributes:
        reason: Why it is to end; "" = it is not.
        over: Whether it ends with the last round that was looked at.
    """

    def __init__(
        self,
        metric: str | None = None,
        above: float | None = None,
        below: float | None = None,
        patience: int | None = None,
        mode: Literal["max", "min"] = "max",
        callbacks: Sequence[Each] = (),
        evaluate_every: int = 1,
    ) -> None:
        """Take in the rule.

        Args:
            metric: By its tag, such as "student/accuracy"; None = no number ends the run.
            above: As in `stop_reason`, like what follows.
            below: Likewise.
            patience: Likewise.
            mode: Likewise.
            callbacks: Told of each round.
            evaluate_every: Which rounds are evaluated: it ends with such a one, for the numbers
                that a result has.

        Raises:
            ValueError: The rule is none; names the key of the config.
        """
        rule = {"above": above, "below": below, "patience": patience}
        given = [f"stop.{name}" for name, value in rule.items() if value is not None]
        if metric is None and given:
            raise ValueError(f"{given[0]}: expected stop.metric too, such as student/accuracy")
        if metric is not None and not given:
            raise ValueError(
                f"stop.metric={metric}: expected stop.above, stop.below or stop.patience"
            )
        if mode not in ("max", "min"):
            raise ValueError(f"stop.mode={mode}: expected max or min")
        head = "" if metric is None else metric.partition("/")[0]
        if metric is not None and head not in (SECTIONS if "/" in metric else PLAIN):
            meant = f"student/{metric}" if metric in ("accuracy", "loss") else ""
            meant = metric.replace(".", "/") if metric.split(".")[0] in SECTIONS else meant
            near = f"; did you mean {meant}?" * bool(meant)
            raise ValueError(
                f"stop.metric={metric}: no number of a round{near}; they are "
                f"{', '.join(f'{section}/...' for section in SECTIONS)}, {', '.join(PLAIN)}"
            )
        self._metric, self._callbacks, self._every = metric, callbacks, evaluate_every
        self._rule: dict[str, Any] = {**rule, "mode": mode}
        self._seen, self._values, self._asked = 0, list[float](), list[str]()
        self._named = metric is None
        self.reason, self.over = "", False

    def told(self, rounds: int) -> dict[str, Any]:
        """Return what `result.json` says of it: nothing where all R rounds were run."""
        if not self.over or self._seen == rounds:
            return {}
        return {"stopped_early": {"after_round": self._seen, "reason": self.reason}}

    def ended(self) -> bool:
        """Tell whether the run ends with the last round that was looked at."""
        return self.over

    def after_resume(self, lines: Sequence[Mapping[str, Any]]) -> bool:
        """Tell whether a run that is to go on had ended with the last of these rounds.

        Args:
            lines: Of `metrics.jsonl`, all that were committed.

        Returns:
            Whether no round is left: so a run that was killed between its last commit and its
            result ends as one that was not.
        """
        return bool(lines) and self._ends(lines[-1]["round"], self._taken_in(lines))

    def require_named(self, names: Collection[str], section: str = "") -> None:
        """Refuse a metric that is not among the numbers of a round.

        Args:
            names: Their tags.
            section: Of which these are all, such as "student/"; "" = of all there are.

        Raises:
            NoSuchNumber: It is not among them; says which there are.
        """
        metric = self._metric
        if metric is None or metric in names or not metric.startswith(section):
            return
        near = difflib.get_close_matches(metric, names, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        head = metric.partition("/")[0]
        like = sorted(name for name in names if name.startswith(f"{head}/"))
        there = ", ".join([*like[:MOST_NAMES], *["..."] * (len(like) > MOST_NAMES)]) or "none"
        raise NoSuchNumber(
            f"stop.metric={metric}: not among the numbers of a round{hint}; of {head}: {there}"
        )

    def after_round(self, lines: Sequence[Mapping[str, Any]]) -> bool:
        """Look at the last of the rounds that there are.

        Args:
            lines: Of `metrics.jsonl`, all of the run's, those before a resume too.

        Returns:
            Whether the run ends with it.

        Raises:
            NoSuchNumber: The metric is in no line up to the second round that is evaluated: some
                numbers compare with an earlier one.
        """
        numbers = self._taken_in(lines) | {"round": lines[-1]["round"]}
        if not self._named and sum(line["round"] % self._every == 0 for line in lines) >= 2:
            self.require_named({name for line in lines for name in _names(line, "")})
            self._named = True
        for each in self._callbacks:
            said = each(dict(numbers))
            if isinstance(said, bool | np.bool_) and said:
                self._asked.append(getattr(each, "reason", "") or "a callback asked for it")
        return self._ends(lines[-1]["round"], numbers)

    def _taken_in(self, lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Note the metric of each round that was not looked at; return the last one's numbers."""
        from sim.tracking.round_metrics import flat

        numbers: dict[str, float] = {}
        for line in lines[self._seen :]:
            numbers = flat({**line})
            value = numbers.get(self._metric or "", math.nan)
            if not math.isnan(value):
                self._values.append(value)
        self._seen = len(lines)
        return numbers

    def _ends(self, server_round: int, numbers: Mapping[str, float]) -> bool:
        """Judge a round: the rule by what holds in it, callbacks by what they have asked for."""
        why = stop_reason(self._values, **self._rule) if self._metric in numbers else ""
        reasons = [*([f"{self._metric}: {why}"] if why else []), *self._asked]
        self.over = bool(reasons) and server_round % self._every == 0
        self.reason = "; ".join(reasons) if self.over else ""
        return self.over


def _names(values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Yield the names of numbers, of those that a line has as null too."""
    for name, value in values.items():
        inner = isinstance(value, Mapping)
        yield from _names(value, f"{prefix}{name}/") if inner else [f"{prefix}{name}"]
