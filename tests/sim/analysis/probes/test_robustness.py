"""Attacks and gradients of inputs: linear networks worked by hand, finite differences."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.data import classification, dense_labelling, regression
from sim.analysis.probes.robustness import fgsm, input_gradient_norm, pgd

FLAT = classification((3,), 2)
WEIGHTS = torch.tensor([[1.0, -2.0, 0.0], [-1.0, 0.0, 0.0]])
"""Logits are W x: the gradient of the loss is W^T (p - y), of class 0 (p_1) times (-2, 2, 0)."""

INPUTS = torch.tensor([[0.3, 0.0, 0.5], [2.0, -1.0, -1.0], [-2.0, 1.0, 1.0]])
LABELS = torch.tensor([0, 0, 1])
"""All are right, by margins 2 x_1 - 2 x_2 of class 0 of 0.6, 6 and -6; ranges [-2, 2], [-1, 1]."""


def linear(weights: Tensor = WEIGHTS) -> nn.Module:
    network = nn.Linear(weights.shape[1], weights.shape[0], bias=False)
    network.weight.data = weights.clone()
    return network.eval()


class Looking(nn.Module):
    """Notes the inputs that it answers."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.seen = inner, list[Tensor]()

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append(inputs.detach().clone())
        answers: Tensor = self.inner(inputs)
        return answers


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_fgsm_on_a_linear_network_by_hand() -> None:
    """The signs are (-, +, 0) of class 0 and (+, -, 0) of class 1; ranges hold [-2, 2], [-1, 1]."""
    network = Looking(linear())
    assert fgsm(network, INPUTS, LABELS, task=FLAT, epsilon=0.1) == {"fgsm_accuracy": 1.0}
    expected = [[0.2, 0.1, 0.5], [1.9, -0.9, -1.0], [-1.9, 0.9, 1.0]]
    torch.testing.assert_close(network.seen[-1], torch.tensor(expected))
    # 0.6 - 4 epsilon < 0: the first one falls.
    assert fgsm(network, INPUTS, LABELS, task=FLAT, epsilon=0.2)["fgsm_accuracy"] == pytest.approx(
        2 / 3
    )
    assert fgsm(network, INPUTS, LABELS, task=FLAT, epsilon=9.0)["fgsm_accuracy"] == 0.0
    cut = [[-2.0, 1.0, 0.5], [-2.0, 1.0, -1.0], [2.0, -1.0, 1.0]]  # black to white, no further
    torch.testing.assert_close(network.seen[-1], torch.tensor(cut))


def test_pgd_goes_to_the_corner_of_the_box_and_no_further() -> None:
    network = Looking(linear())
    found = pgd(network, INPUTS, LABELS, task=FLAT, rng=rng(), epsilon=0.2, steps=4)
    assert found == {"pgd_accuracy": pytest.approx(2 / 3)}
    corner = [[0.1, 0.2], [1.8, -0.8], [-1.8, 0.8]]
    torch.testing.assert_close(network.seen[-1][:, :2], torch.tensor(corner))
    assert len(network.seen) == 5
    for seen in network.seen:
        assert float((seen - INPUTS).abs().max()) <= 0.2 + 1e-6
        assert bool((seen.amax(0) <= INPUTS.amax(0)).all())
        assert bool((seen.amin(0) >= INPUTS.amin(0)).all())
    start = network.seen[0]
    assert not torch.equal(start, INPUTS)
    one = Looking(linear())
    pgd(one, INPUTS, LABELS, task=FLAT, rng=rng(), epsilon=0.2, steps=1, step_size=0.01)
    assert torch.equal(one.seen[0], start)  # drawn from the generator
    moved = (one.seen[1] - start)[0]
    torch.testing.assert_close(moved[:2], torch.tensor([-0.01, 0.01]))


@pytest.mark.parametrize("epsilon", [0.05, 0.4])
def test_pgd_never_leaves_more_than_fgsm_on_a_linear_network(epsilon: float) -> None:
    draws = torch.Generator().manual_seed(0)
    network, inputs = (
        linear(torch.randn(2, 3, generator=draws)),
        torch.randn(200, 3, generator=draws),
    )
    labels = network(inputs).argmax(1)
    what = network, inputs, labels
    left = fgsm(*what, task=FLAT, epsilon=epsilon)["fgsm_accuracy"]
    assert left < 1.0
    # Of two classes the sign is the same everywhere: both end in the same corner.
    assert pgd(*what, task=FLAT, rng=rng(), epsilon=epsilon)["pgd_accuracy"] == left


def test_without_a_step_what_is_left_is_the_plain_accuracy() -> None:
    draws = torch.Generator().manual_seed(1)
    network, inputs = (
        linear(torch.randn(2, 3, generator=draws)),
        torch.randn(50, 3, generator=draws),
    )
    labels = torch.randint(0, 2, (50,), generator=draws)
    plain = float((network(inputs).argmax(1) == labels).double().mean())
    assert 0 < plain < 1
    assert fgsm(network, inputs, labels, task=FLAT, epsilon=0.0)["fgsm_accuracy"] == plain
    found = pgd(network, inputs, labels, task=FLAT, rng=rng(), epsilon=0.0)
    assert found["pgd_accuracy"] == plain


def test_the_gradients_norm_by_hand_and_by_finite_differences() -> None:
    found = input_gradient_norm(linear(), INPUTS, LABELS, task=FLAT)
    wrong = 1 / (1 + np.exp([0.6, 6.0, 6.0]))  # what the other class gets
    assert found["input_gradient_norm"] == pytest.approx(
        float((wrong * np.sqrt(8)).mean()), rel=1e-5
    )

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double().eval()
    inputs, step = INPUTS.double(), 1e-6
    norms = []
    for k, x in enumerate(inputs):
        ends = x + step * torch.cat([torch.eye(3), -torch.eye(3)]).double()
        losses = FLAT.loss(network(ends), LABELS[k].expand(6)).detach()
        norms.append(float(((losses[:3] - losses[3:]) / (2 * step)).norm()))
    found = input_gradient_norm(network, inputs, LABELS, task=FLAT)
    assert found["input_gradient_norm"] == pytest.approx(np.mean(norms), rel=1e-6)


def test_pixels_and_numbers_have_their_own_measure() -> None:
    """Dense labels, of which one is not known; a regression of its own target."""
    task = dense_labelling((1, 2, 2), 2)
    images = torch.tensor([[[[1.0, -1.0], [-1.0, 1.0]]]])
    labels = torch.tensor([[[0, 1], [1, -1]]])
    network = nn.Conv2d(1, 2, 1, bias=False).eval()
    network.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
    assert fgsm(network, images, labels, task=task, epsilon=0.0) == {"fgsm_miou": 1.0}
    assert fgsm(network, images, labels, task=task, epsilon=2.0) == {"fgsm_miou": 0.0}
    numbers = regression((3,), 2)
    exact = linear()(INPUTS).detach()
    assert fgsm(linear(), INPUTS, exact + 1, task=numbers, epsilon=0.0)["fgsm_r2"] < 1.0
    # 0.5 |W x - y|^2, residual (-1, -1): the gradient is W^T r = (0, 2, 0).
    found = input_gradient_norm(linear(), INPUTS, exact + 1, task=numbers)
    assert found["input_gradient_norm"] == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize(
    ("attack", "numbers", "message"),
    [
        (fgsm, {"epsilon": -0.1}, "epsilon=-0.1: expected >= 0"),
        (pgd, {"epsilon": float("nan"), "rng": rng()}, "epsilon=nan: expected >= 0"),
        (pgd, {"steps": 0, "rng": rng()}, "steps=0: expected an integer >= 1"),
        (pgd, {"step_size": 0.0, "rng": rng()}, "step_size=0.0: expected > 0"),
    ],
    ids=["fgsm", "pgd", "steps", "size"],
)
def test_numbers_out_of_range_are_named(attack: Any, numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attack(linear(), INPUTS, LABELS, task=FLAT, **numbers)


def test_tokens_have_no_gradient() -> None:
    with pytest.raises(ValueError, match="inputs are tokens, which have no gradient"):
        fgsm(nn.Embedding(3, 2), torch.tensor([[0, 1]]), torch.tensor([0]), task=FLAT)
