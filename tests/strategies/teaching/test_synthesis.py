"""Synthesis of inputs, and the weights of an ensemble that sees them: by hand."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clients.models.generator import image_generator
from clients.seeding import seeded_torch
from clients.training.optimizer_steps import stepper
from strategies.teaching.synthesis import Synthesis, boosted_weights, norm_distances, perturbed

ADAM = partial(torch.optim.Adam, lr=0.01)
LN3 = float(np.log(3.0))


def made(**changes: Any) -> Synthesis:
    about = {"generator": partial(image_generator, width=2), "optimizer": ADAM}
    return Synthesis(**(about | {"batch_size": 8, "noise_size": 3} | changes))


@pytest.mark.parametrize("only_disagreed", [True, False])
@pytest.mark.parametrize("hard_power", [0.0, 2.0])
def test_the_loss_by_hand(only_disagreed: bool, hard_power: float) -> None:
    """Twice p = (3/4, 1/4); the student says the same class once, and once the other."""
    said = torch.tensor([[LN3, 0.0], [LN3, 0.0]])
    own = torch.tensor([[2.0, 2.0], [0.0, LN3]])
    synthesis = made(only_disagreed=only_disagreed, hard_power=hard_power, adversarial_weight=3.0)
    found = synthesis.loss(said, own, torch.tensor([0, 1]))
    likely = (0.25**hard_power * np.log(4 / 3) + 0.75**hard_power * np.log(4)) / 2
    alike, other = 0.75 * np.log(1.5) + 0.25 * np.log(0.5), 0.5 * LN3
    apart = (other + (0.0 if only_disagreed else alike)) / 2
    assert float(found) == pytest.approx(likely - 3 * apart, abs=1e-5)


def test_the_temperature_scales_the_adversarial_term() -> None:
    said, own = torch.tensor([[2 * LN3, 0.0]]), torch.tensor([[0.0, 2 * LN3]])
    synthesis = made(adversarial_temperature=2.0)
    found = synthesis.loss(said, own, torch.tensor([0]))
    assert float(found) == pytest.approx(np.log(10 / 9) - 4 * 0.5 * LN3)


def test_distances_of_batch_norms_by_hand() -> None:
    norm = nn.BatchNorm1d(2).eval()
    with norm_distances([norm, nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)]) as d:
        norm(torch.tensor([[1.0, 0.0], [3.0, 2.0]]))
    assert [float(each) for each in d] == pytest.approx([np.sqrt(5)])  # means (2, 1), variance 1
    norm(torch.zeros(2, 2))
    assert len(d) == 1


def test_a_perturbation_is_of_its_size_along_the_gradient() -> None:
    """Only the first network has a weight: the gradient of v . z is W_1^T v."""
    one, other = nn.Linear(2, 3), nn.Linear(2, 3)
    inputs = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([1.0, 0.0])
    with seeded_torch(np.random.default_rng(0)):
        found = perturbed(inputs, [one, other], weights, 0.5)
    with seeded_torch(np.random.default_rng(0)):
        direction = (2 * torch.rand(5, 3) - 1) @ one.weight
    wanted = inputs + 0.5 * direction / direction.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found, wanted)


def test_weights_by_hand() -> None:
    """The first network is right about both, the second wrong, the third says nothing."""
    answers = torch.tensor([[[1.0, -1.0]] * 2, [[-1.0, 1.0]] * 2, [[0.0, 0.0]] * 2])
    labels, move = torch.tensor([0, 0]), partial(boosted_weights, step=0.1, decay=0.5)
    found = move(torch.tensor([0.5, 0.5, 0.5]), answers, labels, 0)
    np.testing.assert_allclose(found, [0.6, 0.4, 0.5])
    np.testing.assert_allclose(move(found, answers, labels, 1), [0.65, 0.35, 0.5])
    np.testing.assert_allclose(move(torch.tensor([0.95, 0.02, 0.0]), answers, labels, 0), [1, 0, 0])


def test_a_generator_learns_what_the_ensemble_takes_for_the_labels() -> None:
    with seeded_torch(np.random.default_rng(0)):
        networks = [nn.Sequential(nn.Flatten(), nn.Linear(16, 4)) for _ in range(2)]
        student = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
        generator = image_generator((1, 4, 4), 3, width=4)
    labels, weights = torch.tensor([0, 1, 2, 3] * 2), torch.full((2,), 0.5)
    losses = []
    for steps in (1, 60):
        with seeded_torch(np.random.default_rng(1)):
            step = stepper(ADAM, [*generator.parameters()])
            what = generator, step, networks, weights, student, labels
            synthesis = made(steps=steps, adversarial_weight=0.0)
            inputs, loss = synthesis.batch(*what)
        assert inputs.shape == (8, 1, 4, 4)
        assert not inputs.requires_grad
        losses.append(loss)
    assert losses[1] < 0.5 * losses[0]
    assert all(p.grad is None for p in student.parameters())


@pytest.mark.parametrize("name", ["steps", "batch_size", "noise_size", "bn_weight", "hard_power",
                                  "adversarial_weight", "perturbation",
                                  "adversarial_temperature"])  # fmt: skip
def test_numbers_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"strategy.synthesis.{name}=-1: expected"):
        made(**{name: -1})
