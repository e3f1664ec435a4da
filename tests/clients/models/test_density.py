"""KuLSIF: the closed form by hand, a density ratio that is known, and what becomes of it."""

from math import exp, pi, sqrt

import numpy as np
import pytest
import torch
from torch import nn

from clients.models.density import density_ratio, kulsif

NETWORK = nn.Identity()


def column(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


def test_the_ratio_of_one_point_each_by_hand() -> None:
    """m = n = 1: a (1 + r) = -k(u, x) / r, w(y) = a k(y, u) + k(y, x) / r; r = 1/2, sigma = 1."""
    near, far = exp(-0.5), exp(-2.0)  # of points that are 1 and 2 apart
    ratio = density_ratio(column(0.0), column(1.0), 1.0, 0.5)
    factor = -(near / 0.5) / 1.5
    assert ratio(column(0.0)).item() == pytest.approx(factor * near + 1 / 0.5)
    assert ratio(column(2.0)).item() == pytest.approx(factor * near + far / 0.5)


def test_two_points_of_noise_need_the_inverse_of_the_matrix() -> None:
    """(K / 2 + r I) a = -K_ux / (2 r): by Cramer's rule; the matrix itself gives another."""
    noise, own, ridge = column(0.0, 1.0), column(0.0), 0.25
    k = exp(-0.5)
    diagonal, beside = 0.5 + ridge, k / 2
    right = np.array([-1.0, -k]) / (2 * ridge)
    det = diagonal**2 - beside**2
    factors = np.array([diagonal * right[0] - beside * right[1],
                        diagonal * right[1] - beside * right[0]]) / det  # fmt: skip
    ratio = density_ratio(own, noise, 1.0, ridge)
    expected = factors[0] * 1 + factors[1] * k + 1 / ridge
    assert ratio(column(0.0)).item() == pytest.approx(expected)


def test_it_comes_near_a_density_ratio_that_is_known() -> None:
    """Normal (0, 1) against uniform on [-4, 4]: 8 exp(-x^2 / 2) / sqrt(2 pi)."""
    rng = np.random.default_rng(0)
    own = torch.from_numpy(rng.normal(size=(2000, 1)))
    noise = torch.from_numpy(rng.uniform(-4, 4, size=(1000, 1)))
    places = torch.linspace(-3, 3, 25, dtype=torch.float64)[:, None]
    found = density_ratio(
        own, noise, 0.7, 1000**-0.5)(places)  # fmt: skip
    true = 8 * (-places[:, 0].square() / 2).exp() / sqrt(2 * pi)
    assert np.corrcoef(found, true)[0, 1] > 0.98
    assert float((found - true).abs().mean()) < 0.3


def confidences(
    inputs: torch.Tensor, own: torch.Tensor, seed: int = 0, **numbers: float
) -> torch.Tensor:
    return kulsif(NETWORK, inputs, own=own, rng=np.random.default_rng(seed), **numbers)


def test_what_is_like_ones_own_ranks_among_ones_own_and_noise_does_not() -> None:
    rng = torch.Generator().manual_seed(0)
    own = 0.1 * torch.randn(200, 2, 2, generator=rng) + torch.tensor([1.0, 0.0])
    like = 0.1 * torch.randn(200, 2, 2, generator=rng) + torch.tensor([1.0, 0.0])
    other = 0.1 * torch.randn(200, 2, 2, generator=rng) + torch.tensor([0.0, 1.0])
    known, unknown = (confidences(each, own, sigma=0.5) for each in (like, other))
    assert float((known >= 0.25).double().mean()) == pytest.approx(0.75, abs=0.1)
    assert float((unknown >= 0.25).double().mean()) == 0
    assert float(known.min()) > 0
    assert float(known.max()) <= 1


def test_noise_is_of_the_generator_and_between_ones_own_numbers() -> None:
    own, asked = torch.rand(30, 3), torch.rand(20, 3)
    few = {"points": 2, "sigma": 0.3}
    one, same, other = (confidences(asked, own, seed, **few) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_what_it_cannot_do_is_refused() -> None:
    own = torch.rand(5, 3)
    for changes in ({"sigma": 0.0}, {"points": 0}):
        with pytest.raises(ValueError, match=r"strategy\.discriminator\.sigma=.*points="):
            confidences(own, own, **changes)
    with pytest.raises(ValueError, match="tokens"):
        confidences(torch.zeros(2, 3, dtype=torch.int64), own)
