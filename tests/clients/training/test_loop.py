"""The one training loop against loops written by hand, and what it must refuse."""

import random
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from clients.data import normalised
from clients.seeding import torch_seed
from clients.training.batches import batches
from clients.training.loop import train
from clients.training.losses import cross_entropy, kl
from tests.small_problems import BLOBS, SGD, fit, half_square, same_bits, scalar_problem, small_mlp


def sizes(num_examples: int, batch_size: int) -> list[int]:
    return [len(b) for b in batches(num_examples, batch_size, np.random.default_rng(0))]


# --- batches ---


@settings(max_examples=200, deadline=None)
@given(n=st.integers(1, 300), batch_size=st.integers(1, 80), seed=st.integers(0, 2**31))
def test_batches_hold_every_position_exactly_once(n: int, batch_size: int, seed: int) -> None:
    cut = list(batches(n, batch_size, np.random.default_rng(seed)))
    assert sorted(np.concatenate(cut).tolist()) == list(range(n))
    assert all(1 <= len(batch) <= batch_size + 1 for batch in cut)


@pytest.mark.parametrize(
    ("n", "batch_size", "expected"),
    [
        (10, 5, [5, 5]),
        (10, 4, [4, 4, 2]),
        (9, 4, [4, 5]),  # a remainder of one joins the batch before it
        (5, 2, [2, 3]),
        (3, 10, [3]),
        (1, 4, [1]),  # alone, not beside others
    ],
)
def test_batch_sizes(n: int, batch_size: int, expected: list[int]) -> None:
    assert sizes(n, batch_size) == expected


def test_batch_size_one_means_one_example_per_step() -> None:
    # 3 / 1 leaves no remainder, so there is nothing to join.
    assert sizes(3, 1) == [1, 1, 1]


def test_batches_follow_one_permutation_of_the_generator() -> None:
    cut = list(batches(10, 4, np.random.default_rng(3)))
    assert np.concatenate(cut).tolist() == np.random.default_rng(3).permutation(10).tolist()


# --- against loops written by hand ---


@pytest.mark.parametrize("batch_size", [16, 59, 60, 100])
def test_train_is_plain_sgd_bit_for_bit(batch_size: int) -> None:
    ours, by_hand = small_mlp(), small_mlp()
    fit(ours, epochs=3, batch_size=batch_size, seed=4)

    rng = np.random.default_rng(4)
    torch_seed(rng)
    labels = torch.tensor(BLOBS.labels)
    for _ in range(3):
        order = rng.permutation(60)
        # 60 = 3 * 16 + 12 = 59 + 1, where the one joins the 59
        step = 60 if batch_size == 59 else batch_size
        for batch in (order[i : i + step] for i in range(0, 60, step)):
            logits = by_hand(torch.from_numpy(normalised(BLOBS, batch)))
            loss = nn.functional.cross_entropy(logits, labels[batch])
            gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(by_hand.parameters(), gradients, strict=True):
                    parameter.add_(gradient, alpha=-0.1)
    assert same_bits(ours, by_hand)
    assert not same_bits(ours, small_mlp())


def test_two_steps_with_momentum_by_hand() -> None:
    # loss (2w - 3)**2 / 2, rate .1, momentum .5:
    #   w = 1:    loss .5,  gradient 2 (2 - 3)   = -2,    v = -2,           w = 1.2
    #   w = 1.2:  loss .18, gradient 2 (2.4 - 3) = -1.2,  v = -1 - 1.2,     w = 1.42
    model, dataset = scalar_problem()
    losses = train(
        model,
        dataset,
        np.array([0]),
        torch.tensor([3.0]),
        half_square,
        np.random.default_rng(0),
        epochs=2,
        batch_size=1,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.5),
    )
    assert model[1].weight.item() == pytest.approx(1.42, abs=1e-6)
    assert losses == pytest.approx([0.5, 0.18], abs=1e-6)


def test_each_call_starts_with_a_fresh_optimiser() -> None:
    # As above, but the momentum is forgotten between the steps: w = 1.2 + .1 * 1.2 = 1.32
    model, dataset = scalar_problem()
    for _ in range(2):
        train(
            model,
            dataset,
            np.array([0]),
            torch.tensor([3.0]),
            half_square,
            np.random.default_rng(0),
            epochs=1,
            batch_size=1,
            optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.5),
        )
    assert model[1].weight.item() == pytest.approx(1.32, abs=1e-6)


def test_reported_losses_are_means_over_examples_not_over_batches() -> None:
    # Rate 0: the model stands still, so whatever the batches (60 = 7 * 8 + 4) both epochs report
    # the mean over all examples.
    model = small_mlp()
    losses = fit(model, batch_size=8, optimizer=partial(torch.optim.SGD, lr=0.0))
    with torch.no_grad():
        logits = model(torch.from_numpy(normalised(BLOBS, np.arange(60))))
    mean = nn.functional.cross_entropy(logits, torch.tensor(BLOBS.labels)).item()
    assert losses == pytest.approx([mean, mean], rel=1e-6)


def test_row_i_of_the_targets_belongs_to_the_ith_index() -> None:
    # Reversing indices and targets together, in one batch, is the same problem in another order.
    turned, straight = small_mlp(), small_mlp()
    for model, order in ((straight, np.arange(60)), (turned, np.arange(60)[::-1].copy())):
        labels = torch.tensor(BLOBS.labels[order])
        rng = np.random.default_rng(0)
        train(
            model, BLOBS, order, labels, cross_entropy, rng, epochs=5, batch_size=60, optimizer=SGD
        )
    for mine, theirs in zip(turned.parameters(), straight.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


def test_soft_targets_lead_the_student_to_the_teacher() -> None:
    teacher, student = small_mlp(1), small_mlp(0)
    fit(teacher, epochs=20)
    inputs = torch.from_numpy(normalised(BLOBS, np.arange(60)))
    with torch.no_grad():
        targets = teacher(inputs).softmax(-1)
    losses = train(
        student,
        BLOBS,
        np.arange(60),
        targets,
        partial(kl, temperature=1.0),
        np.random.default_rng(0),
        epochs=100,
        batch_size=16,
        optimizer=partial(torch.optim.Adam, lr=1e-2),
    )
    assert losses[-1] < losses[0] / 20
    with torch.no_grad():
        assert (student(inputs).softmax(-1) - targets).abs().max() < 0.2


# --- randomness ---


def test_training_draws_from_its_generator_only() -> None:
    trained = []
    for disturbance in (1, 2):
        model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 4))
        nn.init.zeros_(model[2].weight)
        nn.init.zeros_(model[2].bias)
        torch.manual_seed(disturbance)
        fit(model, seed=9)
        trained.append(model)
    assert same_bits(*trained)
    fit(again := nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 4)), seed=10)
    assert not same_bits(trained[0], again)


def test_training_leaves_all_global_generators_alone() -> None:
    def states() -> tuple[Any, ...]:
        legacy = np.random.get_state()
        return random.getstate(), legacy[1].tobytes(), legacy[2], torch.get_rng_state().tolist()

    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 4))
    before = states()
    fit(model)
    assert states() == before


# --- clipping ---


def test_an_infinite_max_grad_norm_is_none_bit_for_bit() -> None:
    clipped, free = small_mlp(), small_mlp()
    assert fit(clipped, max_grad_norm=float("inf")) == fit(free)
    assert same_bits(clipped, free)


def test_a_small_max_grad_norm_shortens_the_step() -> None:
    # Gradient -2 cut to -.5: w = 1 + .1 * .5
    model, dataset = scalar_problem()
    train(
        model,
        dataset,
        np.array([0]),
        torch.tensor([3.0]),
        half_square,
        np.random.default_rng(0),
        epochs=1,
        batch_size=1,
        optimizer=SGD,
        max_grad_norm=0.5,
    )
    assert model[1].weight.item() == pytest.approx(1.05, abs=1e-6)


# --- corners ---


def test_a_network_with_batch_norm_survives_a_remainder_of_one() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 4))
    assert np.isfinite(fit(model, n=9, batch_size=4)).all()
    assert int(model[1].num_batches_tracked) == 4  # 2 epochs of batches of 4 and 5


def test_no_epochs_change_nothing_and_the_model_is_left_in_train_mode() -> None:
    model = small_mlp().eval()
    assert fit(model, epochs=0) == []
    assert same_bits(model, small_mlp())
    assert model.training


def test_a_loss_that_is_not_finite_says_what_to_do() -> None:
    with pytest.raises(FloatingPointError, match=r"epoch \d of 2: lower lr"):
        fit(small_mlp(), optimizer=partial(torch.optim.SGD, lr=1e20))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": -1}, "epochs=-1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"n": 0}, "no examples"),
        ({"max_grad_norm": 0.0}, "max_grad_norm=0"),
        ({"max_grad_norm": -1.0}, "max_grad_norm=-1"),  # torch would climb: gradient times -1
        ({"max_grad_norm": float("nan")}, "max_grad_norm=nan"),
    ],
    ids=str,
)
def test_a_number_out_of_range_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    model = small_mlp()
    with pytest.raises(ValueError, match=message):
        fit(model, **changes)
    assert same_bits(model, small_mlp())


def test_targets_of_another_length_are_refused() -> None:
    rng = np.random.default_rng(0)
    labels = torch.tensor(BLOBS.labels[:5])
    with pytest.raises(ValueError, match="5 targets for 6 examples"):
        train(
            small_mlp(),
            BLOBS,
            np.arange(6),
            labels,
            cross_entropy,
            rng,
            epochs=1,
            batch_size=4,
            optimizer=SGD,
        )
