"""Generators: inputs of any image's shape, standardised, of a stream of their own."""

from typing import Any

import numpy as np
import pytest
import torch

from clients.models.generator import image_generator
from clients.seeding import seeded_torch


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (2, 1, 1), (1, 28, 28)])
def test_it_makes_standardised_images_of_any_shape(shape: Any) -> None:
    with seeded_torch(np.random.default_rng(0)):
        network = image_generator(shape, 6, width=4)
        made = network(torch.randn(32, 6))
    assert made.shape == (32, *shape)
    values = made.transpose(0, 1).flatten(1)
    np.testing.assert_allclose(values.mean(1).detach(), 0, atol=1e-5)
    np.testing.assert_allclose(values.var(1, False).detach(), 1, atol=1e-2)


def test_its_size_by_hand() -> None:
    """Linear 3 x 16 + 16, norms 2 * (8 + 8 + 4), convolutions 9 * 64 + 8, 9 * 32 + 4, 9 * 4 + 1."""
    network = image_generator((1, 5, 4), 3, width=4)
    assert sum(p.numel() for p in network.parameters()) == 64 + 40 + 584 + 292 + 37


@pytest.mark.parametrize(
    ("shape", "noise_size", "width", "named"),
    [((16,), 2, 2, "image_shape"), ((1, 4, 4), 0, 2, "noise_size"), ((1, 4, 4), 2, 0, "width")],
)
def test_what_it_cannot_be_made_of_is_refused(
    shape: Any, noise_size: int, width: int, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        image_generator(shape, noise_size, width=width)
