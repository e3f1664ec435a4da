"""Linear CKA: known values, and what it does not see."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.analysis.drift import linear_cka

seeds = st.integers(0, 2**31)


# --- linear CKA ---


X = torch.tensor([[1, 0], [0, 1], [1, 1], [2, 0]], dtype=torch.float64)
Y = torch.tensor([[1, 0, 1], [0, 2, 0], [1, 1, 0], [1, 0, 3]], dtype=torch.float64)


def test_linear_cka_of_the_known_features() -> None:
    assert linear_cka(X, Y) == pytest.approx(0.944841, abs=5e-7)


@settings(max_examples=50, deadline=None)
@given(
    seed=seeds,
    scale=st.floats(1e-3, 1e3),
    unbiased=st.booleans(),
    sizes=st.tuples(st.integers(5, 30), st.integers(1, 8), st.integers(1, 8)),
)
def test_linear_cka_does_not_see_rotation_scale_shift_or_which_is_first(
    seed: int, scale: float, unbiased: bool, sizes: tuple[int, int, int]
) -> None:
    rng = np.random.default_rng(seed)
    num, d, e = sizes
    x, y = (torch.from_numpy(rng.standard_normal((num, size))) for size in (d, e))
    rotation = torch.from_numpy(np.linalg.qr(rng.standard_normal((d, d)))[0])
    turned = scale * x @ rotation + 3
    value = linear_cka(x, y, unbiased)
    if math.isnan(value):  # of features this few the unbiased estimate may be below 0
        assert unbiased
        return
    assert linear_cka(turned, y, unbiased) == pytest.approx(value, rel=1e-6, abs=1e-9)
    assert linear_cka(y, x, unbiased) == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert linear_cka(turned, x, unbiased) == pytest.approx(1)
    assert unbiased or 0 <= value <= 1 + 1e-12


def test_unbiased_cka_of_unrelated_features_is_about_zero_where_the_plain_one_is_not() -> None:
    rng = torch.Generator().manual_seed(0)
    pairs = [torch.randn(2, 64, 64, generator=rng) for _ in range(50)]
    unbiased = np.array([linear_cka(x, y, unbiased=True) for x, y in pairs])
    assert abs(unbiased.mean()) < 4 * unbiased.std() / 50**0.5  # 4 standard errors
    assert np.mean([linear_cka(x, y) for x, y in pairs]) > 0.4


def test_cka_of_what_does_not_vary_is_none_and_of_too_few_is_refused() -> None:
    assert math.isnan(linear_cka(X, torch.ones(4, 2)))
    for few in (X[:3], X[:0]):
        with pytest.raises(ValueError, match=rf"CKA of {len(few)} and {len(few)} examples"):
            linear_cka(few, few, unbiased=True)
    with pytest.raises(ValueError, match="CKA of 4 and 3 examples"):
        linear_cka(X, Y[:3])


# --- teachers ---


@settings(max_examples=25, deadline=None)
@given(seed=seeds, num_inputs=st.integers(4, 9))
def test_unbiased_cka_is_that_of_u_centred_kernels(seed: int, num_inputs: int) -> None:
    """Székely and Rizzo, "Partial Distance Correlation", 2014, def. 2: U-centring, by its sums."""
    rng = np.random.default_rng(seed)
    kernels = []
    for width in (3, 5):
        x = rng.normal(size=(num_inputs, width))
        x -= x.mean(0)
        k = x @ x.T
        np.fill_diagonal(k, 0)
        n = num_inputs
        k = k - k.sum(0) / (n - 2) - k.sum(1)[:, None] / (n - 2) + k.sum() / ((n - 1) * (n - 2))
        np.fill_diagonal(k, 0)
        kernels.append((x, k))
    (x, one), (y, other) = kernels
    expected = (one * other).sum() / np.sqrt((one * one).sum() * (other * other).sum())
    found = linear_cka(torch.from_numpy(x), torch.from_numpy(y), unbiased=True)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
