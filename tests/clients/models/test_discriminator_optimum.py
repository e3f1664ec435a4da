"""Discriminators are at their optimum: Newton's method in numpy, written apart, finds the same."""

import numpy as np
import pytest

from clients.data import digits
from clients.models import discriminator
from clients.models.discriminator import fit_discriminator, own_probability

Floats = np.ndarray


def by_newton(own: Floats, negatives: Floats, queries: Floats, balanced: bool, l2: float) -> Floats:
    """Probabilities at the minimum of sum_i s_i CE_i + l2 / 2 |w|**2, the intercept b left free."""
    inputs = np.concatenate([own, negatives]).astype(float)
    norm = np.sqrt((inputs**2).sum(1)).max()
    design = np.c_[inputs / norm, np.ones(len(inputs))]
    labels = np.r_[np.ones(len(own)), np.zeros(len(negatives))]
    of_its_kind = np.where(labels == 1, len(own), len(negatives))
    mass = len(labels) / (2 * of_its_kind) if balanced else np.ones(len(labels))
    penalty = np.r_[np.full(design.shape[1] - 1, l2), 0.0]
    solution = np.zeros(design.shape[1])
    for _ in range(100):
        probs = 1 / (1 + np.exp(-design @ solution))
        gradient = design.T @ (mass * (probs - labels)) + penalty * solution
        curved = (design * (mass * probs * (1 - probs))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(curved, gradient)
        solution -= step
        if np.abs(step).max() < 1e-11:
            break
    else:
        raise AssertionError("the oracle has no optimum")
    return 1 / (1 + np.exp(-(queries / norm @ solution[:-1] + solution[-1])))


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("l2", [1e-4, 0.01, 1.0])
def test_pixels_of_digits_are_told_apart_as_well_as_can_be(balanced: bool, l2: float) -> None:
    images, labels = digits()[0].inputs[:600].reshape(600, -1) / 16 - 0.3, digits()[0].labels[:600]
    own, negatives, queries = images[labels < 2], images[labels > 1][:150], images[400:]
    fitted = fit_discriminator(own, negatives, balanced=balanced, l2=l2)
    exact = by_newton(own, negatives, queries, balanced, l2)
    assert np.abs(own_probability(fitted, queries) - exact).max() < 1e-6


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(("of_own", "of_negatives", "inputs"), [(20, 200, 3), (200, 20, 12)])
def test_clouds_that_overlap_are_too(
    balanced: bool, of_own: int, of_negatives: int, inputs: int
) -> None:
    rng = np.random.default_rng(of_own)
    own = rng.normal(size=(of_own, inputs)) + 0.7 * rng.normal(size=inputs)
    negatives, queries = rng.normal(size=(of_negatives, inputs)), rng.normal(size=(50, inputs))
    fitted = fit_discriminator(own, negatives, balanced=balanced, l2=0.01)
    exact = by_newton(own, negatives, queries, balanced, 0.01)
    assert np.abs(own_probability(fitted, queries) - exact).max() < 1e-6


def test_more_inputs_than_examples_are_no_harder() -> None:
    # 40 examples of 300 numbers can always be separated; only the penalty makes an optimum.
    rng = np.random.default_rng(0)
    own, negatives, queries = rng.normal(0.1, size=(20, 300)), *rng.normal(size=(2, 20, 300))
    fitted = fit_discriminator(own, negatives, balanced=False, l2=0.01)
    exact = by_newton(own, negatives, queries, False, 0.01)
    assert np.abs(own_probability(fitted, queries) - exact).max() < 1e-6


def test_stopping_before_the_optimum_is_a_failure_that_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(discriminator, "MOST_STEPS", 2)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"after 2 steps: raise strategy\.discriminator\.l2=1e-06"):
        fit_discriminator(
            rng.normal(1, size=(9, 3)), rng.normal(size=(9, 3)), balanced=False, l2=1e-6
        )
