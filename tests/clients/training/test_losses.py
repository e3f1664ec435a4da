"""Losses: values and gradients worked by hand, zero at equality, per example, T**2 as a flag."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from clients.training.losses import cross_entropy, kl, reverse_kl

Loss = Callable[[Tensor, Tensor, float], Tensor]

DISTILLATION_LOSSES = {
    "kl": kl,
    "kl_without_t2": partial(kl, scale_by_t2=False),
    "reverse_kl": reverse_kl,
}
TEMPERATURES = [0.5, 1.0, 4.0, 10.0]

each_loss = pytest.mark.parametrize("loss", DISTILLATION_LOSSES.values(), ids=DISTILLATION_LOSSES)


def random_logits(rows: int = 5, classes: int = 4, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(rows, classes, generator=rng, dtype=torch.float64)


def random_targets(rows: int = 5, classes: int = 4, seed: int = 1) -> Tensor:
    return random_logits(rows, classes, seed).softmax(-1)


def gradient_of(loss: Loss, logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    leaf = logits.clone().requires_grad_()
    loss(leaf, targets, temperature).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


# --- values ---


def test_kl_by_hand() -> None:
    # targets (3/4, 1/4) against (1/2, 1/2): .75 ln 1.5 + .25 ln .5 = .304099 - .173287 = .130812
    # targets (1/2, 1/2) against (4/5, 1/5): .5 ln (.5/.8) + .5 ln (.5/.2) = .223144
    logits = torch.tensor([[0.0, 0.0], [math.log(4), 0.0]], dtype=torch.float64)
    targets = torch.tensor([[0.75, 0.25], [0.5, 0.5]], dtype=torch.float64)
    expected = torch.tensor([0.130812, 0.223144], dtype=torch.float64)
    torch.testing.assert_close(kl(logits, targets, 1.0), expected, atol=1e-6, rtol=0)


def test_kl_by_hand_at_temperature_two() -> None:
    # Student softmax((2 ln 4, 0) / 2) = (4/5, 1/5); T**2 = 4 times .223144
    logits = torch.tensor([[2 * math.log(4), 0.0]], dtype=torch.float64)
    targets = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    assert kl(logits, targets, 2.0).item() == pytest.approx(4 * 0.2231435513, abs=1e-9)
    assert kl(logits, targets, 2.0, scale_by_t2=False).item() == pytest.approx(
        0.2231435513, abs=1e-9
    )


def test_reverse_kl_by_hand() -> None:
    # The student comes first: (4/5, 1/5) against (1/2, 1/2): .8 ln 1.6 + .2 ln .4 = .192745;
    # the forward divergence of the same pair is .223144.
    logits = torch.tensor([[math.log(4), 0.0]], dtype=torch.float64)
    targets = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    assert reverse_kl(logits, targets, 1.0).item() == pytest.approx(0.192745, abs=1e-6)
    assert reverse_kl(2 * logits, targets, 2.0).item() == pytest.approx(4 * 0.192745, abs=4e-6)


def test_kl_counts_a_target_of_zero_as_nothing() -> None:
    # targets (1, 0) against (1/4, 3/4): ln 4, and no 0 * log 0
    logits = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64)
    targets = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert kl(logits, targets, 1.0).item() == pytest.approx(math.log(4), abs=1e-12)
    # gradient of the cross-entropy: softmax - target
    expected = torch.tensor([[0.25 - 1, 0.75]], dtype=torch.float64)
    torch.testing.assert_close(gradient_of(kl, logits, targets, 1.0), expected)


def test_reverse_kl_stays_finite_where_a_target_is_zero() -> None:
    # student (1/2, 1/2), targets (1, 1e-12): .5 ln .5 + .5 (ln .5 + 12 ln 10) = 13.122363
    logits = torch.zeros(1, 2, dtype=torch.float64)
    targets = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert reverse_kl(logits, targets, 1.0).item() == pytest.approx(13.122363, abs=1e-6)
    assert torch.isfinite(gradient_of(reverse_kl, logits, targets, 1.0)).all()


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_kl_is_a_sum_over_classes_not_a_mean(classes: int) -> None:
    # A one-hot target against a flat student: ln C whatever C is; divided by C it would shrink.
    targets = torch.eye(classes, dtype=torch.float64)[:1]
    value = kl(torch.zeros(1, classes, dtype=torch.float64), targets, 1.0)
    assert value.item() == pytest.approx(math.log(classes), abs=1e-12)


@each_loss
def test_a_loss_is_per_example(loss: Loss) -> None:
    logits, targets = random_logits(), random_targets()
    values = loss(logits, targets, 2.0)
    assert values.shape == (5,)
    one_by_one = [loss(logits[i : i + 1], targets[i : i + 1], 2.0) for i in range(5)]
    torch.testing.assert_close(values, torch.cat(one_by_one))


def test_cross_entropy_by_hand_and_per_example() -> None:
    # softmax (1/4, 3/4): -ln(1/4) for class 0, -ln(3/4) for class 1
    logits = torch.tensor([[0.0, math.log(3)]] * 2, dtype=torch.float64)
    values = cross_entropy(logits, torch.tensor([0, 1]))
    expected = torch.tensor([math.log(4), math.log(4 / 3)], dtype=torch.float64)
    torch.testing.assert_close(values, expected)


# --- zero at equality ---


@each_loss
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_loss_and_its_gradient_are_zero_at_equality(loss: Loss, temperature: float) -> None:
    logits = random_logits()
    targets = (logits / temperature).softmax(-1)
    zero = torch.zeros(5, dtype=torch.float64)
    torch.testing.assert_close(loss(logits, targets, temperature), zero, atol=1e-12, rtol=0)
    gradient = gradient_of(loss, logits, targets, temperature)
    torch.testing.assert_close(gradient, torch.zeros_like(logits), atol=1e-12, rtol=0)


@each_loss
def test_a_loss_is_positive_where_student_and_targets_differ(loss: Loss) -> None:
    assert (loss(random_logits(), random_targets(), 1.0) > 1e-3).all()


@each_loss
def test_a_constant_added_to_all_logits_changes_nothing(loss: Loss) -> None:
    logits, targets = random_logits(), random_targets()
    shifted = loss(logits + 7.0, targets, 3.0)
    torch.testing.assert_close(shifted, loss(logits, targets, 3.0))


# --- gradients ---


@each_loss
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradient_agrees_with_finite_differences(loss: Loss, temperature: float) -> None:
    logits, targets = random_logits().requires_grad_(), random_targets()
    assert torch.autograd.gradcheck(lambda z: loss(z, targets, temperature), (logits,))


@pytest.mark.parametrize("loss", [kl, reverse_kl])
def test_with_t2_the_gradient_of_small_logits_does_not_depend_on_temperature(loss: Loss) -> None:
    # For logits z, v << 1: softmax(z / T) = 1/C + (z - mean z) / (C T) + O(z**2), so that the
    # gradient T**2 * (softmax(z / T) - softmax(v / T)) / T = (z - v, centred) / C for every T.
    student, teacher = 1e-4 * random_logits(seed=0), 1e-4 * random_logits(seed=1)
    difference = student - teacher
    expected = (difference - difference.mean(-1, keepdim=True)) / 4
    for temperature in (1.0, 3.0, 10.0):
        targets = (teacher / temperature).softmax(-1)
        gradient = gradient_of(loss, student, targets, temperature)
        torch.testing.assert_close(gradient, expected, atol=1e-7, rtol=0)


def test_without_t2_the_gradient_of_small_logits_shrinks_with_temperature_squared() -> None:
    student, teacher = 1e-4 * random_logits(seed=0), 1e-4 * random_logits(seed=1)
    plain = partial(kl, scale_by_t2=False)
    at_one = gradient_of(plain, student, teacher.softmax(-1), 1.0).norm()
    at_ten = gradient_of(plain, student, (teacher / 10).softmax(-1), 10.0).norm()
    assert (at_one / at_ten).item() == pytest.approx(100, rel=1e-3)
