"""Drift in output space and the probes that show it: known values, bounds, brute force."""

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clients.teachers import RoundView, TeacherPredictions
from sim.drift import disagreement, entropy, jensen_shannon
from sim.probes import output_drift, trust


def random_probs(num_clients: int, num_inputs: int = 20, sharpness: float = 3.0) -> Tensor:
    rng = torch.Generator().manual_seed(num_clients)
    logits = torch.randn(num_clients, num_inputs, 5, generator=rng, dtype=torch.float64)
    return (sharpness * logits).softmax(-1)


def view(weights: Tensor, logits: Tensor | None = None) -> RoundView:
    num_clients, num_inputs = weights.shape
    teachers = TeacherPredictions(
        client_ids=tuple(range(num_clients)),
        logits=torch.zeros(num_clients, num_inputs, 3) if logits is None else logits,
        mask=torch.ones(num_clients, num_inputs, dtype=torch.bool),
        own_probs=None,
        num_examples=torch.ones(num_clients),
    )
    return RoundView(1, tuple(range(num_inputs)), teachers, weights, torch.zeros(num_inputs, 3), [])


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


# --- probes ---


@pytest.mark.parametrize("num_clients", [1, 2, 5])
def test_trust_of_uniform_weights_is_log_k(num_clients: int) -> None:
    values = trust(view(torch.full((num_clients, 7), 1 / num_clients)))
    assert values["weight_entropy"] == pytest.approx(math.log(num_clients), abs=1e-6)
    assert values["largest_weight"] == pytest.approx(1 / num_clients, abs=1e-6)


def test_trust_of_one_deciding_teacher_is_zero() -> None:
    weights = torch.eye(3)[:, [0, 1, 2, 2]]
    assert trust(view(weights)) == {"weight_entropy": 0.0, "largest_weight": 1.0}


def test_trust_counts_covered_examples_only() -> None:
    # Entropies ln 2 and 0, and an example that nobody covers
    weights = torch.tensor([[0.5, 1.0, 0.0], [0.5, 0.0, 0.0]])
    values = trust(view(weights))
    assert values["weight_entropy"] == pytest.approx(math.log(2) / 2, abs=1e-6)
    assert values["largest_weight"] == pytest.approx(0.75, abs=1e-6)


def test_output_drift_is_the_mean_over_examples() -> None:
    # First example: the known pair, votes differ; second: both say the same.
    pair = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    probs = torch.stack([pair, torch.tensor([[0.5, 0.3, 0.2]] * 2)], dim=1)
    values = output_drift(view(torch.full((2, 2), 0.5), probs.log()))
    assert values["output_disagreement"] == 0.5
    assert values["output_js"] == pytest.approx(0.222923 / 2, abs=1e-6)


def test_output_drift_takes_its_examples_a_few_at_a_time() -> None:
    # 40 examples are three pieces; by hand they are one.
    probs = random_probs(4, 40)
    values = output_drift(view(torch.full((4, 40), 0.25), probs.log()))
    assert values["output_disagreement"] == pytest.approx(float(disagreement(probs).mean()))
    assert values["output_js"] == pytest.approx(float(jensen_shannon(probs).mean()))


def test_probes_change_nothing() -> None:
    weights, logits = torch.full((2, 4), 0.5), random_probs(2, 4).log()
    before = logits.clone()
    seen = view(weights, logits)
    trust(seen)
    output_drift(seen)
    assert torch.equal(seen.teachers.logits, before)
    assert (seen.weights == 0.5).all()
