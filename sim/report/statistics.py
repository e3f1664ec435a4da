"""What several seeds say: mean and spread, and paired differences with an interval.

Runs are few, and that decides the method. A bootstrap interval of a mean lies between the smallest
and the largest difference, so with five seeds whatever resampling is used it excludes 0 whenever
all five have one sign: in 1 of 16 cases where there is no difference, in 1 of 4 with three seeds.
The percentile interval is narrower yet, by sqrt((n-1)/n) and by the normal's quantile in place of
Student's (T. Hesterberg, What Teachers Should Know about the Bootstrap, 2014, arXiv 1411.5279,
section 5.3); BCa and the studentised bootstrap are worse there (A. Owen, Better bootstrap t
confidence intervals for the mean, 2025, arXiv 2508.10083). So two intervals are made: Hesterberg's
expanded percentile bootstrap, and Student's t, which is exact where differences are normal. A
difference is claimed only if both exclude 0. `docs/report.md` has how often that errs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 9999
SEED = 0
"""Of the bootstrap, so that a report of the same runs says the same."""
FEWEST_SEEDS = 3
"""Below that no interval is given: that of two differences by Student's t is 12.7 times as wide as
they are apart, and the bootstrap has three different means."""
ROUNDING = 1e-12
"""Differences that are no further apart than this share of the values are alike: the subtraction of
two doubles errs by 2e-16 of them."""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) of so many values; NaN deviation of one value."""

    mean: float
    deviation: float
    count: int


def spread(values: Sequence[float]) -> Spread:
    """Sum values up.

    Args:
        values: Finite, at least one.

    Returns:
        Their mean and standard deviation.
    """
    several = len(values) > 1
    return Spread(
        mean=float(np.mean(values)),
        deviation=float(np.std(values, ddof=1)) if several else float("nan"),
        count=len(values),
    )


@dataclass(frozen=True)
class Difference:
    """Of two methods over the seeds that they share, in the unit of the measure.

    Attributes:
        mean: Of the paired differences, first minus second; NaN without a shared seed.
        seeds: How many they share.
        bootstrap: Its expanded percentile bootstrap interval; None below FEWEST_SEEDS.
        student_t: Its Student's t interval; None below FEWEST_SEEDS. Both have no width where all
            differences are alike.
    """

    mean: float
    seeds: int
    bootstrap: tuple[float, float] | None
    student_t: tuple[float, float] | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The smallest interval that holds both; it contains 0 if one of them does."""
        if self.bootstrap is None or self.student_t is None:
            return None
        lows, highs = zip(self.bootstrap, self.student_t, strict=True)
        return min(lows), max(highs)

    @property
    def alike(self) -> bool:
        """Whether all differences are the same, so that there is no spread to go by."""
        return self.interval is not None and self.interval[0] == self.interval[1]

    @property
    def found(self) -> bool:
        """Whether there is an interval and 0 is not in it."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def paired_difference(first: Mapping[Any, float], second: Mapping[Any, float]) -> Difference:
    """Compare two methods seed by seed.

    Args:
        first: A measure by seed, finite.
        second: The same measure of the other method.

    Returns:
        The mean of first minus second over the shared seeds, with 95 % intervals.
    """
    shared = [seed for seed in first if seed in second]
    apart = np.array([first[seed] - second[seed] for seed in shared])
    count = len(apart)
    mean = float(apart.mean()) if count else float("nan")
    if count < FEWEST_SEEDS:
        return Difference(mean, count, None, None)
    largest = max(abs(one[seed]) for one in (first, second) for seed in shared)
    if np.ptp(apart) <= ROUNDING * largest:
        mean = mean if abs(mean) > ROUNDING * largest else 0.0
        return Difference(mean, count, (mean, mean), (mean, mean))
    from scipy import stats  # here: a second, which a report of one run does not need

    half = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * float(apart.std(ddof=1)) / sqrt(count)
    bootstrap = stats.bootstrap(
        (apart,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=expanded_level(count),
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    low, high = float(bootstrap.low), float(bootstrap.high)
    return Difference(mean, count, (low, high), (mean - half, mean + half))


def expanded_level(count: int) -> float:
    """Tell how much of the bootstrap distribution a percentile interval must hold.

    Args:
        count: How many values are resampled, n >= 2.

    Returns:
        1 - 2 Phi(-sqrt(n / (n-1)) t) with t Student's 97.5 % quantile of n - 1 degrees of freedom
        (Hesterberg 2014, section 5.3): 0.998 for n = 5, to 0.95 for large n.
    """
    from scipy import stats

    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * sqrt(count / (count - 1))
    return float(1 - 2 * stats.norm.sf(quantile))
