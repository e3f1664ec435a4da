"""Early stopping of a run: by a number of its rounds, or as whoever is told of them asks."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

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
        self._metric, self._rule, self._callbacks = metric, {**rule, "mode": mode}, callbacks
        self._seen, self._values, self._every = 0, list[float](), evaluate_every
        self.reason, self.over = "", False

    def told(self, rounds: int) -> dict[str, Any]:
        """Return what `result.json` says of it: nothing where all R rounds were run."""
        if not self.over or self._seen == rounds:
            return {}
        return {"stopped_early": {"after_round": self._seen, "reason": self.reason}}

    def ended(self) -> bool:
        """Tell whether the run ends with the last round that was looked at."""
        return self.over

    def after_round(self, lines: Sequence[Mapping[str, Any]], warn: Callable[[str], None]) -> bool:
        """Look at the last of the rounds that there are.

        Args:
            lines: Of `metrics.jsonl`, all of the run's, those before a resume too.
            warn: Told where the metric is not among the numbers.

        Returns:
            Whether the run ends with it.
        """
        from sim.tracking.round_metrics import flat

        for line in lines[self._seen :]:
            numbers = flat({**line})
            if self._metric in numbers:
                self._values.append(numbers[self._metric])
        self._seen = len(lines)
        numbers |= {"round": lines[-1]["round"]}
        if self._metric is not None and not self._values and len(lines) == 1:
            near = difflib.get_close_matches(self._metric, numbers, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" * bool(near)
            warn(f"stop.metric={self._metric}: not among the numbers of round 1{hint}")
        why = stop_reason(self._values, **self._rule)  # type: ignore[arg-type]
        reasons = [f"{self._metric}: {why}"] if why and self._metric in numbers else []
        for each in self._callbacks:
            if each(dict(numbers)) is True:
                reasons.append(getattr(each, "reason", "") or "a callback asked for it")
        self.reason = self.reason or "; ".join(reasons)
        self.over = bool(self.reason) and lines[-1]["round"] % self._every == 0
        return self.over
