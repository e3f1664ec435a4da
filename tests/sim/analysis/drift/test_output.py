"""Drift of answers: known values, bounds, invariances, brute force."""

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr

from sim.analysis.drift import (
    disagreement,
    disagreement_by_client,
    disagreement_matrix,
    entropy,
    jensen_shannon,
    jensen_shannon_matrix,
    kl_from_ensemble,
    kl_to_ensemble,
)
from tests.views import random_probs

seeds = st.integers(0, 2**31)


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
