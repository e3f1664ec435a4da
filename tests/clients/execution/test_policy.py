"""Which way a network is trained together, and why not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from clients.data import classification
from clients.execution.policy import way_of
from clients.execution.stack import Way
from tests.trained_together import CLASSES, SGD, SHAPE, built

pytestmark = pytest.mark.usefixtures("one_thread")


class Gated(nn.Module):
    """Its answer to an example depends on the others of the batch, once the gain is not zero."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(()))
        self.linear = nn.Linear(16, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        return self.linear(x + self.gain * (x - x.mean(0)))


def pruned() -> nn.Module:
    """Prune by torch's own, which keeps the product of weights and mask as an attribute."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    prune.l1_unstructured(network[1], "weight", 0.5)
    return network


@pytest.mark.parametrize(
    ("model", "optimizer", "expected"),
    [
        (lambda: built("mlp"), SGD, ("wide", "all its layers can be widened")),
        (lambda: built("lenet5"), SGD, ("wide", "all its layers")),
        (lambda: built("resnet20-batch"), SGD, (None, "convolutions of 32 channels")),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.PReLU()), SGD, ("vmap", "PReLU")),
        (pruned, SGD, (None, "Linear keeps a computed tensor")),
        (Gated, SGD, (None, "depends on the others of the batch")),
        (lambda: nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(16, 5)), SGD, (None, "Drop")),
        (lambda: built("mlp"), torch.optim.LBFGS, (None, "LBFGS does not update each number")),
        (
            lambda: nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()
            ),
            SGD,
            (None, "BatchNorm2d answers by the batch's own"),
        ),
    ],
)
def test_the_way_and_its_reason(
    model: Callable[[], nn.Module], optimizer: Any, expected: tuple[Way | None, str]
) -> None:
    network = model()
    shape = SHAPE if any("features" in name for name, _ in network.named_modules()) else (1, 4, 4)
    way, reason = way_of(network, classification(shape, 10), optimizer)
    assert way == expected[0], reason
    assert expected[1] in reason
