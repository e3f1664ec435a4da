"""The contract of losses, for every one that is found in conf/, and in STILLHOUSE_RULES."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.plugins import LOSSES

losses = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
temperatures = pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
seeds = st.integers(0, 2**32)


def probs(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=dtype).softmax(-1)


def of_numbers(loss: Callable[..., Tensor]) -> bool:
    """Tell whether a loss is one of numbers, a regression's: not by its name."""
    one = torch.linspace(-2, 2, 8).view(2, 4)
    return bool((loss(one, one, temperature=1.0) == 0).all())


@losses
@temperatures
def test_loss_is_per_example_and_zero_with_zero_gradient_at_equality(
    loss: Callable[..., Tensor], temperature: float
) -> None:
    logits = (probs((5, 4), 1).log() * temperature).requires_grad_()
    targets = logits.detach() if of_numbers(loss) else probs((5, 4), 1)
    values = loss(logits, targets, temperature=temperature)
    assert values.shape == (5,)
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert values.abs().max() < 1e-12
    assert gradient.abs().max() < 1e-12


@losses
@temperatures
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_loss_is_positive_elsewhere_and_shift_invariant(
    loss: Callable[..., Tensor], temperature: float, seed: int
) -> None:
    logits, targets = probs((3, 4), seed).log() * 2, probs((3, 4), seed + 1)
    values = loss(logits, targets, temperature=temperature)
    assert (values > 0).all()
    moved = loss(logits + 7, targets, temperature=temperature)
    if of_numbers(loss):
        assert not torch.allclose(moved, values)
    else:
        torch.testing.assert_close(moved, values)


@losses
@temperatures
def test_loss_gradient_against_finite_differences(
    loss: Callable[..., Tensor], temperature: float
) -> None:
    logits, targets = probs((2, 3), 5).log() * 3, probs((2, 3), 6)
    assert torch.autograd.gradcheck(
        lambda z: loss(z, targets, temperature=temperature), logits.requires_grad_()
    )


@losses
def test_loss_is_finite_for_confident_students_and_hard_targets(
    loss: Callable[..., Tensor],
) -> None:
    logits = torch.tensor([[300.0, -300.0, 0.0]], requires_grad=True)
    value = loss(logits, torch.tensor([[0.0, 1.0, 0.0]]), temperature=1.0)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert math.isfinite(value.item())
    assert torch.isfinite(gradient).all()
