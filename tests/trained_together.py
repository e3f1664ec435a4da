"""Clients trained together and one by one, and how far that lies apart."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from clients import models
from clients.data import Dataset, classification
from clients.execution.batched_loop import train_together
from clients.execution.model_cache import as_tensors
from clients.execution.stack import Stack, Way
from clients.models.factory import Parameters, build, load_parameters, parameters_of
from clients.models.layers import Norm
from clients.training.loop import train
from clients.training.losses import cross_entropy

CLASSES = 5
SHAPE = (3, 8, 8)
SGD = partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=1e-3)
WAYS = get_args(Way)
IMAGES = [
    name for name in models.__all__ if name not in ("bag_of_embeddings", "fcn", "transformer")
]
"""Builders of networks that classify images."""
BUILDERS: dict[str, Callable[..., nn.Module]] = {
    name if norm is None else f"{name}-{norm}": build if norm is None else partial(build, norm=norm)
    for name, build in ((name, getattr(models, name)) for name in IMAGES)
    for norm in (get_args(Norm) if "norm" in inspect.signature(build).parameters else (None,))
}
# The same networks with fewer channels, for time.
SLIM: dict[str, dict[str, Any]] = {
    "cnn": {"channels": (4, 8), "hidden": 16},
    "mlp": {"hidden": (16, 16)},
    "vgg9": {"channels": (4, 8, 8, 8, 8, 8), "hidden": (16, 16)},
    "resnet18": {"width": 8},
    "resnet20": {"width": 8},
}


def noise(shape: tuple[int, int, int] = SHAPE, n: int = 120) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    mean, std = (0.5,) * shape[0], (0.3,) * shape[0]
    return Dataset(
        "noise",
        images,
        rng.integers(0, CLASSES, n),
        classification(images.shape[1:], CLASSES),
        1 / 255,
        mean,
        std,
    )


NOISE, GREY = noise(), noise((1, 4, 4))
# How far two results may lie apart, relative to the distance moved. Float32 rounds at 6e-8, which
# comes to 1e-6 after these steps; where a rounding carries an activation across the kink of a ReLU
# it comes to 1e-4, and where many batch norms divide few values by a small deviation, to 1e-3 in
# one step and to anything in several. (Rounding the initial parameters once does as much to
# training one by one.) In float64, which rounds at 1e-16, the same distances stay below 1e-10 after
# many steps of every network, so no mistake hides in the tolerance.
FLOAT32, FLOAT32_MOBILE, FLOAT64 = 1e-4, 5e-3, 1e-10


def parts_of(sizes: Sequence[int]) -> list[np.ndarray]:
    order = np.random.default_rng(1).permutation(120)
    return np.split(order, np.cumsum(sizes))[: len(sizes)]


def labels_of(dataset: Dataset, parts: Sequence[np.ndarray]) -> list[Tensor]:
    return [torch.tensor(dataset.labels[own]) for own in parts]


def built(name: str, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> nn.Module:
    slim = partial(BUILDERS[name], **SLIM.get(name.split("-")[0], {}))
    return build(slim, classification(shape, CLASSES), np.random.default_rng(seed))


def distance(one: Parameters, other: Parameters) -> float:
    """L2 distance over all parameters and buffers."""
    squares = (np.square(one[n].astype(float) - other[n].astype(float)).sum() for n in one)
    return float(np.sqrt(sum(squares)))


class Both:
    """The same training one by one and together."""

    def __init__(
        self,
        model: nn.Module,
        way: Way,
        sizes: Sequence[int],
        *,
        dataset: Dataset = NOISE,
        starts: Sequence[Parameters] | None = None,
        targets: Sequence[Tensor] | None = None,
        loss: Any = cross_entropy,
        anchors: Sequence[dict[str, Any]] = (),
        room: int | None = None,
        **changes: Any,
    ) -> None:
        numbers = {"epochs": 2, "batch_size": 8, "optimizer": SGD} | changes
        parts = parts_of(sizes)
        labels = labels_of(dataset, parts) if targets is None else targets
        first = parameters_of(model)
        self.starts = [first] * len(sizes) if starts is None else starts
        self.alone: list[Parameters] = []
        self.losses_alone: list[Any] = []
        rngs = [np.random.default_rng(k) for k in range(len(sizes))]
        each = anchors or [{}] * len(sizes)
        rows = zip(parts, labels, self.starts, rngs, each, strict=True)
        for own, its_targets, start, rng, its_anchors in rows:
            load_parameters(model, start)
            about = {"anchors": its_anchors, **numbers}
            try:
                losses: Any = train(model, dataset, own, its_targets, loss, rng, **about)
            except (FloatingPointError, ValueError) as error:
                losses = error
            self.losses_alone.append(losses)
            self.alone.append(parameters_of(model))
        load_parameters(model, first)
        self.stack = Stack(model, len(sizes) if room is None else room, way)
        if starts is None:
            self.stack.load_all(as_tensors(first))
        else:
            for k, start in enumerate(starts):
                self.stack.load(k, as_tensors(start))
        again = [np.random.default_rng(k) for k in range(len(sizes))]
        about = {"anchors": anchors, **numbers}
        self.losses = train_together(self.stack, dataset, parts, labels, loss, again, **about)
        self.together = [self.stack.parameters_of(k) for k in range(len(sizes))]
        self.rngs_agree = [
            a.bit_generator.state == b.bit_generator.state for a, b in zip(rngs, again, strict=True)
        ]

    def errors(self) -> list[float]:
        """Distance between the two results, relative to the distance moved, of each client."""
        return [
            distance(mine, theirs) / (distance(theirs, start) or 1.0)
            for mine, theirs, start in zip(self.together, self.alone, self.starts, strict=True)
        ]

    def agree(self, tolerance: float) -> bool:
        """Whether parameters, buffers, losses and generators do."""
        for mine, theirs in zip(self.losses, self.losses_alone, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=tolerance)  # type: ignore[arg-type]
        return max(self.errors()) < tolerance and all(self.rngs_agree)


UNEQUAL = [17, 12, 9, 2]  # steps 2, 2, 1 (8 + a remainder of one), 1: padding and standing still
