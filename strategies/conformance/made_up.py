"""Conformance on what is made up: examples, a network, answers of a cohort."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import SGD

from clients.data import blobs, split
from clients.messages.answers import Answers
from clients.models import mlp
from clients.models.factory import build
from clients.population.clients import SimulatedClients
from clients.training.loop import train

PRIVATE, _ = blobs(num_examples=80, num_classes=4)
"""60 images 1x4x4 of four classes."""


SEED = 7
TRAIN = partial(train, epochs=1, batch_size=16, optimizer=partial(SGD, lr=0.1))
SMALL = partial(mlp, hidden=(6,))


def network() -> nn.Module:
    """Build a network that draws a mask in training, as dropout does."""
    return nn.Sequential(build(SMALL, PRIVATE.task, np.random.default_rng(0)), nn.Dropout(0.5))


K, N, C = 4, 12, 5


def answers(clients: int = K, examples: int = N, classes: int = C, seed: int = 0) -> Answers:
    """Make up answers [K, N, C] that are timid and bold, and discriminators' probabilities."""
    rng = torch.Generator().manual_seed(seed)
    bold = 10 ** torch.linspace(-1, 1, examples)[:, None]
    return Answers(
        tuple(range(clients)),
        torch.randn(clients, examples, classes, generator=rng) * bold,
        torch.ones(clients, examples, dtype=torch.bool),
        torch.rand(clients, examples, generator=rng),
        torch.randint(1, 1000, (clients,), generator=rng).float(),
    )


def crowd(**changes: Any) -> SimulatedClients:
    """Make up four clients of one architecture, the student's, on 72 blobs; a little may change."""
    splits = split(
        *blobs(num_examples=120, num_classes=4, seed=1),
        proxy_share=0.2,
        proxy_source=None,
        limit=None,
        proxy_limit=None,
        rng=np.random.default_rng(0),
    )
    settings: dict[str, Any] = {
        "splits": splits,
        "partitions": np.array_split(np.arange(len(splits.private)), 4),
        "architectures": ["small"] * 4,
        "models": {"small": SMALL},
        "student": SMALL,
        "train": TRAIN,
        "seed": SEED,
    }
    return SimulatedClients(**settings | changes)
