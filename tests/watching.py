"""Federations that probes watch."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clients.data import blobs, split
from clients.models import logistic_regression, mlp
from clients.population.clients import SimulatedClients
from clients.seeding import Purpose, generator
from clients.training.loop import train
from sim.analysis.probes import (
    Forgetting,
    calibration,
    output_drift,
    output_matrices,
    parameter_drift,
    recall_spread,
    representation_drift,
    teacher_audit,
    trust,
)
from sim.tracking.tracker import Tracker
from strategies.aggregation.scorers import max_prob
from tests.federations import SEED, Run, distillation, inline, named, run_ours, simulated

ALL: tuple[Any, ...] = (
    trust, output_drift, output_matrices, recall_spread, calibration, teacher_audit,
    parameter_drift, representation_drift, Forgetting(),
)  # fmt: skip


def drifting(num_clients: int, **changes: Any) -> SimulatedClients:
    """Clients of two architectures with the same kind of data, who learn it well."""
    splits = split(
        *blobs(num_examples=600, seed=1), proxy_share=0.2, proxy_source=None, limit=None,
        proxy_limit=None, rng=generator(SEED, Purpose.SPLIT),
    )  # fmt: skip
    sgd = partial(torch.optim.SGD, lr=0.1)
    return SimulatedClients(
        splits=splits,
        partitions=np.array_split(np.arange(len(splits.private)), num_clients),
        architectures=[("linear", "mlp")[k % 2] for k in range(num_clients)],
        models={"linear": logistic_regression, "mlp": partial(mlp, hidden=(8,))},
        student=logistic_regression,
        train=partial(train, epochs=5, batch_size=16, optimizer=sgd),
        seed=SEED,
        **changes,
    )


def watched(
    folder: Path,
    clients: SimulatedClients,
    rounds: int,
    probes: Any = ALL,
    figures_every: int = 0,
    **changes: Any,
) -> Run:
    folder.mkdir()
    labels = clients.splits.proxy.labels
    tracker = Tracker(folder, named(probes), "", proxy_labels=labels, figures_every=figures_every)
    parts = {"scorer": max_prob, "report": tracker.view} | changes
    strategy = parts.pop("strategy", None) or distillation(clients, **parts)
    try:
        pool = inline(simulated(clients))
        told = {"report": tracker.round, "watch": tracker.view}
        return run_ours(pool, clients, strategy, rounds=rounds, **told)
    finally:
        tracker.close()


class Noisy(nn.Module):
    """Draws whenever it answers: whoever asks it more often must not shift what it draws later."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(math.prod(image_shape), num_classes)

    def forward(self, images: Tensor) -> Tensor:
        answers: Tensor = self.classifier(images.flatten(1))
        return answers + 0.1 * torch.randn(answers.shape)
