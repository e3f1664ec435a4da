"""Calibration against values by hand and scikit-learn's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from sim.analysis.drift import expected_calibration_error, reliability

seeds = st.integers(0, 2**31)


def test_calibration_by_hand() -> None:
    # Bins of (6/15, 7/15]: .45 right, .42 wrong; (13/15, 14/15]: .9 right twice, once wrong.
    confidence = torch.tensor([[0.45, 0.42, 0.9, 0.9, 0.9]])
    correct = torch.tensor([[True, False, True, True, False]])
    curve = reliability(confidence, correct)
    assert curve.counts[0].nonzero()[:, 0].tolist() == [6, 13]
    assert curve.accuracy[0, [6, 13]].tolist() == pytest.approx([0.5, 2 / 3])
    assert curve.confidence[0, [6, 13]].tolist() == pytest.approx([0.435, 0.9])
    by_hand = 2 / 5 * 0.065 + 3 / 5 * (0.9 - 2 / 3)
    assert expected_calibration_error(curve).tolist() == pytest.approx([by_hand])


@settings(max_examples=50, deadline=None)
@given(number=st.integers(1, 60), seed=seeds)
def test_the_reliability_curve_is_scikit_learns(number: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, correct = rng.uniform(0.1, 1, (2, number)), rng.random((2, number)) < 0.5
    curve = reliability(torch.from_numpy(confidence), torch.from_numpy(correct))
    for k in range(2):
        if correct[k].all() or not correct[k].any():
            continue  # scikit-learn wants both
        accuracy, mean = calibration_curve(correct[k], confidence[k], n_bins=15)
        some = curve.counts[k] > 0
        assert curve.accuracy[k][some].numpy() == pytest.approx(accuracy)
        assert curve.confidence[k][some].numpy() == pytest.approx(mean)


def test_calibration_is_zero_where_right_as_often_as_sure_and_one_where_surely_wrong() -> None:
    half = reliability(torch.full((1, 4), 0.5), torch.tensor([[True, False] * 2]))
    sure = reliability(torch.ones(1, 4), torch.zeros(1, 4, dtype=torch.bool))
    assert expected_calibration_error(half).tolist() == [0.0]
    assert expected_calibration_error(sure).tolist() == [1.0]


def test_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    curve = reliability(torch.tensor([[0.0, 0.2, 0.2 + 1e-9]], dtype=torch.float64),
                        torch.ones(1, 3, dtype=torch.bool), bins=5)  # fmt: skip
    assert curve.counts[0].tolist() == [2, 1, 0, 0, 0]
