"""From scores to weights: sums, masks, the cap, and scores that nobody should send."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from strategies.aggregation.normalisation import normalise


def everyone(scores: Tensor) -> Tensor:
    return torch.ones_like(scores, dtype=torch.bool)


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Scores of six orders of magnitude, and zero, with any mask."""
    shape = (draw(st.integers(1, 8)), draw(st.integers(1, 4)))
    numbers = st.one_of(st.just(0.0), st.floats(2**-10, 2**10, width=32))
    scores = draw(hnp.arrays(np.float32, shape, elements=numbers))
    mask = draw(hnp.arrays(np.bool_, shape))
    return torch.from_numpy(scores), torch.from_numpy(mask)


# --- known answers ---


def test_weights_by_hand() -> None:
    scores = torch.tensor([[1.0, 0.0, 3.0], [3.0, 2.0, 3.0]])
    weights = normalise(scores, everyone(scores))
    assert weights.tolist() == [[0.25, 0.0, 0.5], [0.75, 1.0, 0.5]]


def test_a_masked_teacher_weighs_nothing_however_high_its_score() -> None:
    scores = torch.tensor([[1e30], [1.0], [3.0]])
    mask = torch.tensor([[False], [True], [True]])
    assert normalise(scores, mask)[:, 0].tolist() == [0.0, 0.25, 0.75]


def test_an_example_that_nobody_covers_has_no_weights() -> None:
    scores = torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    mask = torch.tensor([[False, True, True], [False, True, True]])
    for cap in (1.0, 0.5, 0.3):
        assert normalise(scores, mask, cap).tolist() == [[0.0, 0.0, 0.5]] * 2


@pytest.mark.parametrize("num_teachers", [1, 2, 4, 8, 64])
@pytest.mark.parametrize("score", [1.0, 0.1, 1e-30, 1e38])
def test_equal_scores_of_a_power_of_two_teachers_are_exact(num_teachers: int, score: float) -> None:
    scores = torch.full((num_teachers, 3), score)
    weights = normalise(scores, everyone(scores))
    assert (weights == 1 / num_teachers).all()


@pytest.mark.parametrize("num_teachers", [3, 5, 10, 100])
def test_equal_scores_are_uniform_weights(num_teachers: int) -> None:
    scores = torch.full((num_teachers, 3), 0.7)
    weights = normalise(scores, everyone(scores))
    assert (weights.double() - 1 / num_teachers).abs().max() < 1e-7


@pytest.mark.parametrize("size", [1e38, 1e-38, 1e-44])
def test_scores_near_the_limits_of_float32_keep_their_ratios(size: float) -> None:
    scores = torch.tensor([[3.0], [1.0], [1.0]]) * torch.tensor(size)
    weights = normalise(scores, everyone(scores))
    # 1e-44 is 7 units of the smallest float32: the ratios are those of the rounded scores.
    expected = scores.double() / scores.double().sum(0)
    torch.testing.assert_close(weights.double(), expected, atol=1e-6, rtol=0)


def test_weights_have_the_dtype_of_the_scores() -> None:
    scores = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    weights = normalise(scores, everyone(scores))
    assert weights.dtype == torch.float64
    assert weights[0].item() == pytest.approx(1 / 3, abs=1e-15)


def test_inputs_are_not_changed() -> None:
    scores = torch.tensor([[1.0, 9.0], [2.0, 1.0]])
    mask = torch.tensor([[True, True], [False, True]])
    normalise(scores, mask, 0.6)
    assert scores.tolist() == [[1, 9], [2, 1]]
    assert mask.tolist() == [[True, True], [False, True]]


# --- the cap ---


@pytest.mark.parametrize(
    ("scores", "cap", "expected"),
    [
        # .8 is cut to .5; its .3 goes to the others 1 : 1
        ((8, 1, 1), 0.5, (0.5, 0.25, 0.25)),
        # in proportion, 3 : 1, not evenly
        ((12, 3, 1), 0.5, (0.5, 0.375, 0.125)),
        # .6, .3, .1 -> .4 and .6 to share 3 : 1 = .45, .15 -> the second is cut too: .4, .4, .2
        ((6, 3, 1), 0.4, (0.4, 0.4, 0.2)),
        # two teachers cannot both stay below .3: even
        ((9, 1), 0.3, (0.5, 0.5)),
        # exactly at the cap
        ((1, 1, 1, 1), 0.25, (0.25, 0.25, 0.25, 0.25)),
        ((1, 1), 0.5, (0.5, 0.5)),
        ((5,), 0.2, (1.0,)),
        ((2, 1, 1), 1.0, (0.5, 0.25, 0.25)),
    ],
)
def test_what_is_above_the_cap_is_shared_in_proportion(
    scores: tuple, cap: float, expected: tuple
) -> None:
    column = torch.tensor(scores, dtype=torch.float32)[:, None]
    assert normalise(column, everyone(column), cap)[:, 0].tolist() == pytest.approx(
        expected, abs=1e-6
    )


def test_the_cap_counts_only_those_who_cover_the_example() -> None:
    scores = torch.tensor([[9.0], [1.0], [1.0], [1.0]])
    mask = torch.tensor([[True], [True], [False], [False]])
    assert normalise(scores, mask, 0.3)[:, 0].tolist() == [0.5, 0.5, 0.0, 0.0]


@settings(max_examples=300, deadline=None)
@given(cohort=cohorts(), cap=st.floats(0.01, 1.0))
def test_weights_sum_to_one_or_to_zero_whatever_the_cap(
    cohort: tuple[Tensor, Tensor], cap: float
) -> None:
    scores, mask = cohort
    weights = normalise(scores, mask, cap)
    covered = (mask & (scores > 0)).any(0)
    torch.testing.assert_close(weights.sum(0), covered.float(), atol=1e-5, rtol=0)
    assert (weights >= 0).all()
    assert (weights[~mask] == 0).all()


@settings(max_examples=300, deadline=None)
@given(cohort=cohorts(), cap=st.floats(0.01, 1.0))
def test_no_weight_is_above_the_cap_and_the_order_of_scores_is_kept(
    cohort: tuple[Tensor, Tensor], cap: float
) -> None:
    scores, mask = cohort
    weights = normalise(scores, mask, cap)
    count = (mask & (scores > 0)).sum(0)
    assert (weights <= (1 / count.clamp_min(1)).clamp_min(cap) + 1e-6).all()
    trusted = torch.where(mask, scores, torch.zeros_like(scores))
    for n in range(scores.shape[1]):
        ranked = weights[trusted[:, n].argsort(), n]
        assert (ranked.diff() >= -1e-6).all()


@settings(max_examples=200, deadline=None)
@given(cohort=cohorts(), cap=st.floats(0.01, 1.0), data=st.data())
def test_permuting_teachers_permutes_weights(
    cohort: tuple[Tensor, Tensor], cap: float, data: st.DataObject
) -> None:
    scores, mask = cohort
    order = torch.tensor(data.draw(st.permutations(range(len(scores)))))
    permuted = normalise(scores[order], mask[order], cap)
    torch.testing.assert_close(permuted, normalise(scores, mask, cap)[order], atol=1e-5, rtol=0)


def test_an_example_does_not_depend_on_the_others() -> None:
    scores = torch.rand(5, 7, generator=torch.Generator().manual_seed(0))
    whole = normalise(scores, everyone(scores), 0.3)
    for n in range(7):
        column = scores[:, n : n + 1]
        torch.testing.assert_close(normalise(column, everyone(column), 0.3), whole[:, n : n + 1])


def test_a_score_too_small_to_divide_by_still_gets_its_share_of_the_cut() -> None:
    # Relative to the first the second is 1e-40, below float32's smallest normal number; the first
    # is cut to .6, and there is nobody else to take the .4.
    scores = torch.tensor([[1e38], [1e-2]])
    assert normalise(scores, everyone(scores), 0.6)[:, 0].tolist() == pytest.approx(
        [0.6, 0.4], abs=1e-6
    )


# --- what is refused ---


@pytest.mark.parametrize("bad", [-1e-3, float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_negative_or_not_finite_are_refused(bad: float) -> None:
    scores = torch.tensor([[1.0, 1.0], [1.0, bad]])
    with pytest.raises(ValueError, match=f"finite and >= 0, found {bad:g}$"):
        normalise(scores, everyone(scores))


@pytest.mark.parametrize("shape", [(2,), (3, 2), (2, 3, 1), (1, 3)])
def test_scores_of_another_shape_than_the_mask_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(2, 3\)"):
        normalise(torch.ones(shape), torch.ones(2, 3, dtype=torch.bool))


@pytest.mark.parametrize("cap", [0.0, -0.1, 1.01, float("nan")])
def test_a_cap_out_of_range_is_refused(cap: Any) -> None:
    with pytest.raises(ValueError, match=f"cap={cap}"):
        normalise(torch.ones(2, 1), torch.ones(2, 1, dtype=torch.bool), cap)
