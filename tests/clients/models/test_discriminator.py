"""Own-versus-proxy discriminators: the exact vector of theory, and what must be refused."""

from dataclasses import replace

import numpy as np
import pytest

from clients.messages.own_probs import read_discriminator, write_discriminator
from clients.messages.requests import PredictionRequest, read_request, write_request
from clients.models.discriminator import (
    Discriminator,
    DiscriminatorRecipe,
    fit_discriminator,
    own_probability,
    privatised,
)

A, B = np.eye(2, dtype=np.float32)
BOTH = np.stack([A, B])

# Two inputs a, b as one-hot features; private counts (80, 20) of client 1 and (90, 210) of
# client 2; the proxy negatives are (100, 100). At the optimum of plain cross-entropy
#   c = own / (own + negatives):   80/180, 20/120   and   90/190, 210/310
# and of the balanced one, where both classes are first scaled to the same mass,
#   c = p / (p + u):   .8/1.3, .2/.7   and   .3/.8, .7/1.2       (u = .5)
COUNTS = {1: (80, 20), 2: (90, 210)}
PLAIN = {1: (0.444444, 0.166667), 2: (0.473684, 0.677419)}
BALANCED = {1: (0.615385, 0.285714), 2: (0.375, 0.583333)}
# n p(x) / (m u(x)): 80/100, 20/100 and 90/100, 210/100
ODDS = {1: (0.8, 0.2), 2: (0.9, 2.1)}


def examples(of_a: int, of_b: int) -> np.ndarray:
    return np.repeat(BOTH, [of_a, of_b], axis=0)


def confidences(client: int, *, balanced: bool, l2: float = 1e-6, scale: float = 1.0) -> np.ndarray:
    own, negatives = examples(*COUNTS[client]), examples(100, 100)
    fitted = fit_discriminator(scale * own, scale * negatives, balanced=balanced, l2=l2)
    return own_probability(fitted, scale * BOTH)


@pytest.mark.parametrize("client", [1, 2])
def test_plain_probabilities_are_own_over_own_plus_negatives(client: int) -> None:
    assert confidences(client, balanced=False) == pytest.approx(PLAIN[client], abs=1e-3)


@pytest.mark.parametrize("client", [1, 2])
def test_balanced_probabilities_do_not_contain_the_sizes(client: int) -> None:
    assert confidences(client, balanced=True) == pytest.approx(BALANCED[client], abs=1e-3)


@pytest.mark.parametrize("client", [1, 2])
def test_plain_odds_are_the_density_ratio_times_the_sizes(client: int) -> None:
    probs = confidences(client, balanced=False).astype(float)
    assert probs / (1 - probs) == pytest.approx(ODDS[client], abs=5e-3)


def test_inputs_are_divided_by_their_largest_norm() -> None:
    # So their unit does not matter, whatever the penalty.
    small, large = (confidences(1, balanced=False, l2=1.0, scale=s) for s in (1.0, 1000.0))
    assert small == pytest.approx(large, abs=1e-6)


def test_the_norm_is_the_largest_of_own_and_negatives() -> None:
    fitted = fit_discriminator(
        np.array([[3.0, 4.0], [0.0, 1.0]]), np.array([[6.0, 8.0]]), balanced=False, l2=0.1
    )
    assert fitted.norm.tolist() == [10.0]


def test_a_strong_penalty_leaves_only_the_prior() -> None:
    # No slope is left, and the intercept is not penalised: 100 of 300 examples are own.
    assert confidences(1, balanced=False, l2=1e9) == pytest.approx([1 / 3, 1 / 3], abs=1e-3)
    assert confidences(1, balanced=True, l2=1e9) == pytest.approx([0.5, 0.5], abs=1e-3)


def test_fitting_twice_gives_the_same_bits() -> None:
    assert confidences(2, balanced=True).tobytes() == confidences(2, balanced=True).tobytes()


def test_separable_sets_get_probabilities_near_zero_and_one_without_warnings() -> None:
    own, negatives = np.tile(A, (50, 1)), np.tile(B, (50, 1))
    probs = own_probability(fit_discriminator(own, negatives, balanced=False, l2=1e-9), BOTH)
    assert probs[0] > 0.999
    assert probs[1] < 0.001


def test_probabilities_by_hand_are_float32() -> None:
    # (4, 3) / 5 . (2, -1) + .5 = 1.5: 1 / (1 + e**-1.5) = .817574
    fitted = Discriminator(np.array([2.0, -1.0]), np.array([0.5]), np.array([5.0]))
    probs = own_probability(fitted, np.array([[4.0, 3.0]], dtype=np.float32))
    assert probs.dtype == np.float32
    assert probs == pytest.approx([0.817574], abs=1e-6)


@pytest.mark.parametrize(("logit", "expected"), [(1e4, 1.0), (-1e4, 0.0)])
def test_an_input_far_from_anything_seen_does_not_overflow(logit: float, expected: float) -> None:
    # e**10000 is beyond float64; a warning is an error in these tests.
    fitted = Discriminator(np.array([logit]), np.array([0.0]), np.array([1.0]))
    assert own_probability(fitted, np.array([[1.0]])) == pytest.approx([expected], abs=1e-9)


def test_inputs_that_are_all_zero_are_not_divided_by_zero() -> None:
    fitted = fit_discriminator(np.zeros((3, 2)), np.zeros((3, 2)), balanced=False, l2=0.01)
    assert own_probability(fitted, np.zeros((1, 2))) == pytest.approx([0.5], abs=1e-3)


def test_no_negatives_are_refused_by_the_name_of_the_setting() -> None:
    with pytest.raises(ValueError, match="negative_share > 0"):
        fit_discriminator(BOTH, BOTH[:0], balanced=False, l2=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": "logits"}, "inputs='logits'"),
        ({"l2": 0.0}, "l2=0.0"),
        ({"l2": -1.0}, "l2=-1.0"),
        ({"l2": float("nan")}, "l2=nan"),
        ({"epsilon": 0.0}, "epsilon=0.0"),
        ({"epsilon": float("nan")}, "epsilon=nan"),
        ({"delta": 0.0}, "delta=0.0"),
        ({"delta": 1.0}, "delta=1.0"),
    ],
    ids=str,
)
def test_a_recipe_out_of_range_is_refused_by_name(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiscriminatorRecipe(**changes)


@pytest.mark.parametrize(
    "recipe",
    [
        None,
        DiscriminatorRecipe(),
        DiscriminatorRecipe("pixels", balanced=True, l2=0.5),
        DiscriminatorRecipe(epsilon=0.1, delta=1e-6),
    ],
    ids=["none", "default", "changed", "noised"],
)
def test_a_recipe_survives_the_message(recipe: DiscriminatorRecipe | None) -> None:
    request = PredictionRequest(server_round=1, num_inputs=3, num_classes=2, recipe=recipe)
    assert read_request(write_request(request)).recipe == recipe


def test_a_fitted_discriminator_survives_the_clients_state_with_all_its_bits() -> None:
    fitted = fit_discriminator(examples(80, 20), examples(100, 100), balanced=False, l2=0.01)
    again = read_discriminator(write_discriminator(fitted))
    for name, value in vars(fitted).items():
        assert vars(again)[name].tobytes() == value.tobytes()
        assert vars(again)[name].shape == value.shape
    assert own_probability(again, BOTH).tobytes() == own_probability(fitted, BOTH).tobytes()


# --- FedAUX's noise ---


def test_the_noise_is_of_the_size_that_is_said_and_norms_stay() -> None:
    # sqrt(2 ln(1.25 / 1e-5)) 2 / (100 * .01) / .1 = 4.844805 * 2 * 10
    recipe = DiscriminatorRecipe(l2=0.01, epsilon=0.1, delta=1e-5)
    fitted = Discriminator(np.zeros(20000), np.array([0.5]), np.array([5.0]))
    noised = privatised(fitted, 100, recipe, np.random.default_rng(0))
    assert noised.coefficients.std() == pytest.approx(96.896, rel=0.02)
    assert noised.coefficients.mean() == pytest.approx(0, abs=3)
    assert noised.norm.tolist() == [5.0]
    assert noised.intercept.shape == (1,)
    assert noised.intercept != fitted.intercept
    assert fitted.coefficients.any() == np.False_
    halved = privatised(fitted, 200, recipe, np.random.default_rng(0))
    np.testing.assert_allclose(2 * halved.coefficients, noised.coefficients)


def test_little_noise_is_next_to_none_and_streams_are_the_generators() -> None:
    fitted = fit_discriminator(examples(80, 20), examples(100, 100), balanced=False, l2=0.01)
    recipe = DiscriminatorRecipe(epsilon=1e9)
    near = privatised(fitted, 300, recipe, np.random.default_rng(0))
    np.testing.assert_allclose(own_probability(near, BOTH), own_probability(fitted, BOTH), 1e-4)
    far = replace(recipe, epsilon=1.0)
    one, same, other = (
        privatised(fitted, 300, far, np.random.default_rng(seed)).coefficients for seed in (0, 0, 1)
    )
    assert one.tolist() == same.tolist() != other.tolist()
