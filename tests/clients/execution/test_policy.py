"""Which way a network is trained together, and why not."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from clients.data import Dataset, classification
from clients.execution.executor import Lesson, Place
from clients.execution.model_cache import as_tensors
from clients.execution.policy import way_of
from clients.execution.stack import Way
from clients.models import bag_of_embeddings, logistic_regression, mlp, resnet8, transformer
from clients.models.factory import build, parameters_of
from clients.training.loop import train
from clients.training.losses import cross_entropy
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


class RowsMeaned(nn.Module):
    """Looks at each of a few rows alone, so that inputs are neither rows nor images."""

    def __init__(self, image_shape: tuple[int, int], num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(image_shape[1], num_classes)

    def forward(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.linear(rows).mean(1)
        return logits


def first_linear(image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    rows = 6 * math.prod(image_shape[:-1])
    linear = nn.Linear(image_shape[-1], 6)
    return nn.Sequential(linear, nn.Flatten(), nn.Linear(rows, num_classes))


@pytest.mark.parametrize(
    ("model", "shape", "way"),
    [
        (mlp, (10,), "wide"),
        (logistic_regression, (10,), "wide"),
        (mlp, (4, 12), "wide"),
        (mlp, (2, 3, 4, 5), "wide"),
        (RowsMeaned, (4, 12), "vmap"),
        (first_linear, (4, 12), "vmap"),
        (first_linear, (10,), "wide"),
        (transformer, (6,), "vmap"),
        (bag_of_embeddings, (6,), "vmap"),
    ],
)
def test_inputs_of_any_shape_are_learned_and_answered_together(
    model: Any, shape: tuple[int, ...], way: Way
) -> None:
    """Rows of tables were refused for their shape, and what had no images was answered alone."""
    tokens = 9 if model in (transformer, bag_of_embeddings) else None
    task, rng = classification(shape, CLASSES, num_tokens=tokens), np.random.default_rng(0)
    inputs: Any = rng.normal(size=(40, *shape)).astype(np.float32)
    if tokens:
        inputs = rng.integers(0, tokens, (40, *shape))
    labels = rng.integers(0, CLASSES, 40)
    normal: Any = ((), ()) if tokens else ((0.0,) * shape[0], (1.0,) * shape[0])
    dataset = Dataset("rows", inputs, labels, task, 1.0, *normal)

    def both(together: bool) -> tuple[list[Any], list[Tensor], set[str]]:
        trainer = partial(train, epochs=2, batch_size=8, optimizer=SGD)
        place = Place({"net": model}, task, "cpu", trainer, together=together)
        start = as_tensors(parameters_of(place.networks.fresh("net", np.random.default_rng(1))))
        own = [np.arange(0, 17), np.arange(17, 40)]
        lessons = [
            Lesson(start, ids, torch.from_numpy(labels[ids]), np.random.SeedSequence(k))
            for k, ids in enumerate(own)
        ]
        done: Any = list(place.fit("net", dataset, lessons, cross_entropy))
        networks = [as_tensors(each.parameters) for each in done]
        said: Any = list(place.answers("net", networks, dataset, np.arange(40)))
        assert ("net" in place._stacks) == together
        return networks, [each.logits for each in said], place.notes

    assert way_of(build(model, task, np.random.default_rng(0)), task, SGD)[0] == way
    (stacked, answers, notes), (alone, said, _) = both(together=True), both(together=False)
    for mine, theirs in zip([*stacked, *answers], [*alone, *said], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    assert notes == set()


def test_who_cannot_be_stacked_is_told_and_who_would_be_slower_is_not() -> None:
    """A reason of speed is the same for every run, and would be a line in all of them."""
    models = {"gated": lambda image_shape, num_classes: Gated(), "wide": resnet8}
    trainer = partial(train, epochs=1, batch_size=8, optimizer=SGD)
    place = Place(models, classification((1, 4, 4), CLASSES), "cpu", trainer, together=True)
    for name in models:
        assert place._policies.way(name) is None
    assert place.notes == {
        "architecture 'gated' trains client by client: its answer to an example depends on the "
        "others of the batch"
    }
