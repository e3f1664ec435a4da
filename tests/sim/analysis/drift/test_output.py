"""Drift measures: known values, bounds, invariances, brute force."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr
from sklearn.calibration import calibration_curve
from torch import Tensor

from sim.analysis.drift import (
    consensus_distance,
    cosine_matrix,
    cosine_to_mean,
    disagreement,
    disagreement_by_client,
    disagreement_matrix,
    effective_teachers,
    entropy,
    expected_calibration_error,
    forgetting,
    gradient_diversity,
    jensen_shannon,
    jensen_shannon_matrix,
    kl_from_ensemble,
    kl_to_ensemble,
    linear_cka,
    lost_recall,
    moments,
    oracle_correct,
    rank_correlation,
    recall,
    reliability,
    total,
    weight_mass,
    wrong_but_confident,
)

seeds = st.integers(0, 2**31)


def random_probs(num_clients: int, num_inputs: int = 20, sharpness: float = 3.0) -> Tensor:
    rng = torch.Generator().manual_seed(num_clients)
    logits = torch.randn(num_clients, num_inputs, 5, generator=rng, dtype=torch.float64)
    return (sharpness * logits).softmax(-1)


# --- entropy ---


def test_entropy_by_hand_along_either_axis() -> None:
    probs = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    assert entropy(probs, -1).tolist() == pytest.approx([math.log(2), 0.0])
    # Columns (.5, 1): .5 ln 2; (.5, 0): .5 ln 2; (0, 0): 0
    half = 0.5 * math.log(2)
    assert entropy(probs, 0).tolist() == pytest.approx([half, half, 0.0])


# --- Jensen-Shannon ---


def test_jensen_shannon_of_the_known_pair() -> None:
    probs = torch.tensor([[[0.7, 0.2, 0.1]], [[0.1, 0.8, 0.1]]], dtype=torch.float64)
    assert jensen_shannon(probs).tolist() == pytest.approx([0.222923], abs=1e-6)


def test_jensen_shannon_is_the_mean_divergence_to_the_mean() -> None:
    # Its other definition: mean_k KL(p_k || mean p)
    probs = random_probs(4)
    mean = probs.mean(0)
    by_hand = (probs * (probs.log() - mean.log())).sum(-1).mean(0)
    torch.testing.assert_close(jensen_shannon(probs), by_hand)


@pytest.mark.parametrize("num_clients", [2, 3, 5])
def test_clients_sure_of_different_classes_are_log_k_apart(num_clients: int) -> None:
    probs = torch.eye(5, dtype=torch.float64)[:num_clients, None]
    assert jensen_shannon(probs).item() == pytest.approx(math.log(num_clients), abs=1e-12)


@pytest.mark.parametrize("num_clients", [2, 3, 10])
def test_jensen_shannon_lies_between_zero_and_log_k(num_clients: int) -> None:
    divergence = jensen_shannon(random_probs(num_clients))
    assert (divergence > 1e-3).all()  # and not zero where clients differ
    assert (divergence <= math.log(num_clients)).all()


@pytest.mark.parametrize("num_clients", [1, 2, 7])
def test_jensen_shannon_is_zero_where_all_agree(num_clients: int) -> None:
    same = random_probs(1).expand(num_clients, -1, -1)
    torch.testing.assert_close(
        jensen_shannon(same), torch.zeros(20, dtype=torch.float64), atol=1e-12, rtol=0
    )


# --- disagreement ---


def test_disagreement_by_hand() -> None:
    # Votes per example: (0, 0, 0), (0, 0, 1), (0, 1, 2): 0, 2 and 3 of 3 pairs differ.
    votes = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 2]])
    probs = torch.nn.functional.one_hot(votes, 3).double()
    assert disagreement(probs).tolist() == pytest.approx([0.0, 2 / 3, 1.0])


@settings(max_examples=100, deadline=None)
@given(
    num_clients=st.integers(2, 9),
    num_classes=st.integers(2, 5),
    seed=st.integers(0, 2**31),
)
def test_disagreement_is_the_share_of_pairs_that_differ(
    num_clients: int, num_classes: int, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_clients, 6, num_classes, generator=rng)
    votes = logits.argmax(-1)
    pairs = list(combinations(range(num_clients), 2))
    for n, value in enumerate(disagreement(logits).tolist()):
        differing = sum(int(votes[i, n] != votes[j, n]) for i, j in pairs)
        assert value == pytest.approx(differing / len(pairs), abs=1e-12)


def test_a_single_client_disagrees_with_nobody() -> None:
    assert disagreement(random_probs(1)).tolist() == [0.0] * 20


def test_disagreement_needs_no_simplex() -> None:
    probs = random_probs(5)
    assert torch.equal(disagreement(probs), disagreement(probs.log()))


# --- by client, and matrices ---


@settings(max_examples=50, deadline=None)
@given(num_clients=st.integers(1, 6), seed=seeds)
def test_each_clients_parts_against_scipy(num_clients: int, seed: int) -> None:
    logits = 3 * torch.randn(num_clients, 4, 5, generator=torch.Generator().manual_seed(seed))
    log_probs = logits.double().log_softmax(-1)
    probs = log_probs.exp()
    mean = probs.mean(0).numpy()
    for k in range(num_clients):
        own = probs[k].numpy()
        assert kl_from_ensemble(log_probs)[k].numpy() == pytest.approx(
            rel_entr(own, mean).sum(-1), abs=1e-12
        )
        assert kl_to_ensemble(log_probs)[k].numpy() == pytest.approx(
            rel_entr(mean, own).sum(-1), abs=1e-12
        )
    torch.testing.assert_close(kl_from_ensemble(log_probs).mean(0), jensen_shannon(probs))
    assert (kl_from_ensemble(log_probs) <= math.log(num_clients) + 1e-12).all()
    torch.testing.assert_close(disagreement_by_client(probs).mean(0), disagreement(probs))


@settings(max_examples=50, deadline=None)
@given(num_clients=st.integers(2, 6), seed=seeds)
def test_jensen_shannon_does_not_depend_on_the_order_of_clients_and_is_zero_iff_they_agree(
    num_clients: int, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    probs = torch.randn(num_clients, 3, 4, generator=rng, dtype=torch.float64).softmax(-1)
    order = torch.randperm(num_clients, generator=rng)
    torch.testing.assert_close(jensen_shannon(probs[order]), jensen_shannon(probs))
    assert (jensen_shannon(probs) > 0).all()
    same = probs[:1].expand(num_clients, -1, -1)
    assert jensen_shannon(same).abs().max() < 1e-14


def test_answers_that_underflow_stay_finite() -> None:
    log_probs = torch.tensor([[[0.0, -1e30]], [[-1e30, 0.0]]], dtype=torch.float64).log_softmax(-1)
    assert kl_from_ensemble(log_probs)[:, 0].tolist() == pytest.approx([math.log(2)] * 2)
    # Half of the ensemble's mass is on what each gives e^-1e30.
    assert kl_to_ensemble(log_probs)[:, 0].tolist() == pytest.approx([5e29] * 2)


def test_disagreement_by_client_by_hand() -> None:
    votes = torch.tensor([[0, 0], [0, 1], [1, 2]])
    probs = torch.nn.functional.one_hot(votes, 3).double()
    # First example: 0 and 1 agree, 2 with nobody; second: nobody with anybody.
    expected = [[0.5, 1.0], [0.5, 1.0], [1.0, 1.0]]
    assert disagreement_by_client(probs).tolist() == expected


@settings(max_examples=30, deadline=None)
@given(num_clients=st.integers(1, 6), seed=seeds)
def test_matrices_hold_each_pair(num_clients: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    probs = (2 * torch.randn(num_clients, 5, 3, generator=rng, dtype=torch.float64)).softmax(-1)
    apart, divergence = disagreement_matrix(probs), jensen_shannon_matrix(probs)
    for i in range(num_clients):
        for j in range(num_clients):
            pair = probs[[i, j]]
            assert apart[i, j] == pytest.approx(float(disagreement(pair).mean()), abs=1e-12)
            assert divergence[i, j] == pytest.approx(float(jensen_shannon(pair).mean()), abs=1e-12)


# --- calibration ---


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


# --- recall and forgetting ---


def test_recall_by_hand() -> None:
    labels = torch.tensor([0, 0, 1, 1, 1])
    known = recall(torch.tensor([[0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]), labels, 3)
    assert known[:, :2].tolist() == [[0.5, pytest.approx(2 / 3)], [1.0, 0.0]]
    assert known[:, 2].isnan().all()


def test_forgetting_by_hand() -> None:
    best = torch.tensor([[0.9, 0.5, math.nan], [math.nan] * 3])
    now = torch.tensor([[0.4, 0.7, math.nan], [0.1, 0.2, 0.3]])
    assert forgetting(best, now)[0].item() == pytest.approx((0.5 - 0.2) / 2)
    assert lost_recall(best, now)[0].item() == pytest.approx(0.5 / 2)
    assert forgetting(best, now)[1].isnan()
    assert lost_recall(best, now)[1].isnan()


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


# --- parameter space ---

UPDATES = torch.tensor([[1.0, 0, 0], [0, 2, 0], [1, 1, 1]])


def test_parameter_drift_of_the_known_updates() -> None:
    of = moments(UPDATES)
    cosines = [0.53452, 0.80178, 0.92582]
    assert cosine_to_mean(of).tolist() == pytest.approx(cosines, abs=5e-6)
    assert gradient_diversity(of) == pytest.approx(0.571429, abs=5e-7)
    assert consensus_distance(of) == pytest.approx(1.111111, abs=5e-7)
    assert of.squared.sqrt().tolist() == pytest.approx([1, 2, 3**0.5])
    pairs = cosine_matrix(UPDATES @ UPDATES.T)
    third = 1 / 3**0.5
    assert pairs.tolist() == [pytest.approx(row) for row in
                              ([1, 0, third], [0, 1, third], [third, third, 1])]  # fmt: skip


def test_layers_add_up_to_the_network() -> None:
    layers = total([moments(UPDATES[:, :1]), moments(UPDATES[:, 1:])])
    for one, whole in zip(vars(layers).values(), vars(moments(UPDATES)).values(), strict=True):
        torch.testing.assert_close(one, whole)


@pytest.mark.parametrize("num_clients", [1, 2, 7])
def test_equal_updates_have_no_distance_and_least_diversity(num_clients: int) -> None:
    of = moments(torch.tensor([[1.0, 2.0]]).expand(num_clients, 2))
    assert consensus_distance(of) == 0
    assert gradient_diversity(of) == pytest.approx(1 / num_clients)
    assert cosine_to_mean(of).tolist() == pytest.approx([1.0] * num_clients)


# --- teachers ---


def test_effective_teachers_by_hand() -> None:
    weights = torch.tensor([[1.0, 0.5, 0.25], [0, 0.5, 0.25], [0, 0, 0.25], [0, 0, 0.25]])
    assert effective_teachers(weights).tolist() == pytest.approx([1, 2, 4])


def test_weight_mass_by_hand() -> None:
    weights = torch.tensor([[0.2, 0.4, 0.0, 1.0], [0.8, 0.6, 0.0, 0.0]])
    mass = weight_mass(weights, torch.tensor([0, 0, 1, 2]), 4)
    # Nobody covers the example of class 1, there is none of class 3.
    assert mass[:, [0, 2]].tolist() == [pytest.approx([0.3, 1.0]), pytest.approx([0.7, 0.0])]
    assert mass[:, [1, 3]].isnan().all()


def test_oracle_and_wrong_but_confident_by_hand() -> None:
    correct = torch.tensor([[True, False, False], [False, False, True]])
    confidence = torch.tensor([[0.9, 0.9, 0.5], [0.95, 0.8, 1.0]])
    assert oracle_correct(correct).tolist() == [True, False, True]
    fooled = wrong_but_confident(confidence, correct, 0.9)
    assert fooled.tolist() == [[False, True, False], [True, False, False]]


def test_rank_correlation_by_hand() -> None:
    right = torch.tensor([True, True, False, False])
    assert rank_correlation(torch.tensor([0.4, 0.3, 0.2, 0.1]), right) == pytest.approx(
        0.894427, abs=1e-6
    )  # 1 - 6 sum d^2 / ... with ties: cov of ranks (4, 3, 2, 1), (3.5, 3.5, 1.5, 1.5) = 2 / sqrt 5
    assert rank_correlation(torch.tensor([0.1, 0.1, 0.2, 0.2]), right) == pytest.approx(-1)
    assert rank_correlation(torch.full((4,), 0.25), right) is None
    assert rank_correlation(torch.tensor([0.4, 0.6]), torch.tensor([True, True])) is None
    assert rank_correlation(torch.tensor([1.0]), torch.tensor([True])) is None


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
