"""Small networks, and problems whose steps can be made by hand."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clients.data import Dataset, blobs, classification
from clients.models import mlp
from clients.models.factory import parameters_of
from clients.training.loop import train
from clients.training.losses import cross_entropy

SGD = partial(torch.optim.SGD, lr=0.1)
BLOBS, _ = blobs(num_examples=80)  # 60 for training


def small_mlp(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return mlp((1, 4, 4), 4, hidden=(8,))


def fit(
    model: nn.Module, n: int = 60, seed: int = 1, loss: Any = cross_entropy, **changes: Any
) -> list[float]:
    """Train on the first n blobs, with the numbers of most tests below."""
    numbers = {"epochs": 2, "batch_size": 16, "optimizer": SGD} | changes
    labels = torch.tensor(BLOBS.labels[:n])
    rng = np.random.default_rng(seed)
    return train(model, BLOBS, np.arange(n), labels, loss, rng, **numbers)


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = parameters_of(one), parameters_of(other)
    return all(mine[name].tobytes() == theirs[name].tobytes() for name in mine)


def scalar_problem() -> tuple[nn.Module, Dataset]:
    """One weight w = 1 and one input x = 2."""
    images = np.full((1, 1, 1, 1), 2, dtype=np.float32)
    labels = np.zeros(1, dtype=np.int64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1, bias=False))
    nn.init.ones_(model[1].weight)
    return model, Dataset(
        "one", images, labels, classification(images.shape[1:], 1), 1.0, (0.0,), (1.0,)
    )


def half_square(logits: Tensor, targets: Tensor) -> Tensor:
    return (logits[:, 0] - targets) ** 2 / 2
