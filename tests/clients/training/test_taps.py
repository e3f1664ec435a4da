"""Taps: outputs inside a network, with their gradients."""

from typing import Any

import numpy as np
import pytest
import torch

from clients.data import classification
from clients.models import (
    cnn,
    lenet5,
    logistic_regression,
    mlp,
    mobilenet_v2_small,
    resnet8,
    resnet20,
    shufflenet_v2_05,
    vgg9,
)
from clients.models.factory import build
from clients.training.taps import Taps, last_map, take_map
from tests.peer_lessons import LENET


def test_a_tap_keeps_the_output_with_its_gradient_and_leaves_nothing_behind() -> None:
    network = build(LENET, classification((1, 28, 28), 10), np.random.default_rng(0))
    with Taps(network, ["features.3"]) as taps:
        network(torch.randn(2, 1, 28, 28))
        kept = take_map(taps)
        assert kept.requires_grad
        assert kept.dim() == 4
        with pytest.raises(ValueError, match="gave None"):
            take_map(taps)
    assert not any(module._forward_hooks for module in network.modules())
    with pytest.raises(ValueError, match=r"tap 'nose'.*features"):
        Taps(network, ["nose"])


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (logistic_regression, (3072, 1, 1)),  # the pixels
        (mlp, (200, 1, 1)),
        (lenet5, (16, 5, 5)),
        (cnn, (64, 8, 8)),
        (vgg9, (256, 4, 4)),
        (resnet8, (64, 8, 8)),  # before the average over pixels, as FFL takes them
        (resnet20, (64, 8, 8)),
        (mobilenet_v2_small, (1280, 4, 4)),
        (shufflenet_v2_05, (1024, 4, 4)),
    ],
)
def test_every_model_of_the_zoo_can_be_tapped_where_nothing_is_said(
    model: Any, shape: tuple[int, ...]
) -> None:
    network = build(model, classification((3, 32, 32), 10), np.random.default_rng(0)).eval()
    name = last_map(network, classification((3, 32, 32), 10))
    with Taps(network, [name]) as taps:
        network(torch.randn(2, 3, 32, 32))
        maps = take_map(taps)
    assert maps.shape == (2, *shape)
    assert not any(module._forward_hooks for module in network.modules())
