"""What is said of several seeds, by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.report.statistics import expanded_level, paired_difference, spread


def test_spread_by_hand() -> None:
    found = spread([1.0, 2.0, 3.0, 4.0])
    assert (found.mean, found.count) == (2.5, 4)
    assert found.deviation == pytest.approx((5 / 3) ** 0.5)
    assert np.isnan(spread([7.0]).deviation)


def test_a_paired_difference_by_hand() -> None:
    """Differences 1..5 over shared seeds: t interval 3 +- 2.776445 * sqrt(2.5 / 5)."""
    first = {seed: 10.0 * seed + seed + 1 for seed in range(5)} | {9: 1e6}
    second = {seed: 10.0 * seed for seed in range(5)} | {8: -1e6}
    found = paired_difference(first, second)
    assert (found.mean, found.seeds) == (3.0, 5)
    assert found.student_t == pytest.approx((3 - 1.963243, 3 + 1.963243), abs=1e-5)
    assert found.bootstrap is not None
    assert found.interval == (
        min(found.student_t[0], found.bootstrap[0]),
        max(found.student_t[1], found.bootstrap[1]),
    )
    assert found.found


def test_of_three_seeds_the_expanded_bootstrap_is_the_range() -> None:
    """Its level, 1 - 1.4e-7, leaves out none of the 27 resamples; the smallest is (1, 1, 1)."""
    found = paired_difference({0: 1.0, 1: 2.0, 2: 6.0}, dict.fromkeys(range(3), 0.0))
    assert found.bootstrap == (1.0, 6.0)


def test_the_expanded_level_is_hesterbergs() -> None:
    # n = 5: sqrt(5 / 4) * 2.776445 = 3.104160, and Phi(-3.104160) = 0.000954
    assert expanded_level(5) == pytest.approx(1 - 2 * 0.000954, abs=2e-6)
    assert expanded_level(100_000) == pytest.approx(0.95, abs=1e-5)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=8), st.floats(0.1, 10))
@settings(max_examples=40, deadline=None)
def test_an_interval_holds_both_and_turns_with_the_sign(apart: list[float], scale: float) -> None:
    """So a difference is stated no oftener than Student's t alone would."""
    values, zeros = dict(enumerate(apart)), dict.fromkeys(range(len(apart)), 0.0)
    found, turned = paired_difference(values, zeros), paired_difference(zeros, values)
    assert found.interval is not None
    assert found.student_t is not None
    assert found.interval[0] <= found.student_t[0] <= found.mean + 1e-12
    assert found.mean - 1e-12 <= found.student_t[1] <= found.interval[1]
    assert turned.mean == -found.mean
    larger = paired_difference({k: scale * v for k, v in values.items()}, zeros)
    assert larger.student_t == pytest.approx([scale * end for end in found.student_t], abs=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "mean", "found"),
    [
        ([50.0] * 5, [50.0] * 5, 0.0, False),
        ([0.0] * 5, [0.0] * 5, 0.0, False),
        ([52.0, 62.0, 72.0], [50.0, 60.0, 70.0], 2.0, True),
        ([100 * 0.58, 100 * 0.29, 100 * 0.57], [58.0, 29.0, 57.0], 0.0, False),  # but for rounding
        ([100 * 0.3, 100 * 0.6, 100 * 0.9], [10.0, 40.0, 70.0], 20.0, True),
    ],
)
def test_differences_that_are_alike_have_no_spread(
    first: list[float], second: list[float], mean: float, found: bool
) -> None:
    difference = paired_difference(dict(enumerate(first)), dict(enumerate(second)))
    assert difference.mean == pytest.approx(mean, abs=1e-12)
    assert difference.interval == (difference.mean, difference.mean)
    assert (difference.alike, difference.found) == (True, found)


@pytest.mark.parametrize("shared", [0, 1, 2])
def test_too_few_seeds_have_no_interval(shared: int) -> None:
    found = paired_difference(dict.fromkeys(range(shared), 1.0), dict.fromkeys(range(5), 0.0))
    assert found.interval is None
    assert not found.found
    assert found.seeds == shared


def test_where_nothing_differs_no_difference_is_said_in_95_of_100() -> None:
    rng = np.random.default_rng(3)
    zeros = dict.fromkeys(range(5), 0.0)
    drawn = [dict(enumerate(rng.normal(0, 0.5, 5))) for _ in range(2000)]
    results = [paired_difference(one, zeros) for one in drawn]
    silent = np.mean([not one.found for one in results])
    bootstrap_alone = np.mean([b[0] <= 0 <= b[1] for one in results if (b := one.bootstrap)])
    error = (0.95 * 0.05 / len(results)) ** 0.5  # standard error of the share, 0.005
    assert silent >= 0.95 - 2 * error
    assert bootstrap_alone < 0.95 - 2 * error  # why Student's t is asked as well


def test_two_points_over_five_seeds_are_found() -> None:
    rng = np.random.default_rng(4)
    zeros = dict.fromkeys(range(5), 0.0)
    found = [paired_difference(dict(enumerate(rng.normal(2, 0.5, 5))), zeros) for _ in range(100)]
    assert np.mean([one.found and one.mean > 0 for one in found]) >= 0.99
