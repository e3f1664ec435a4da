"""Accuracy on classes as a client has them: by hand, and in runs on both pools."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from clients.handlers.function_probes import class_shares
from sim.analysis.probes.personal import own_accuracy
from tests.federations import tiny_clients
from tests.quick_runs import federated

INPUTS = torch.eye(3)[[0, 0, 0, 0, 1, 2]]
LABELS = torch.tensor([0, 0, 0, 1, 1, 0])
"""An identity answers its input's class: three of four zeros are right, one of two ones."""


def test_recalls_are_weighed_by_a_clients_shares() -> None:
    for shares, expected in (
        ([1, 0, 0], 3 / 4), ([0, 1, 0], 1 / 2), ([0.5, 0.5, 0], 5 / 8),
        ([0.25, 0.25, 0.5], 5 / 8),  # no example of the last class
    ):  # fmt: skip
        found = own_accuracy(nn.Identity(), INPUTS, LABELS, class_shares=np.array(shares))
        assert found == {"own_accuracy": pytest.approx(expected)}
    everyone = np.array([[1, 0, 0], [0, 1, 0]])
    assert own_accuracy(nn.Identity(), INPUTS, LABELS, class_shares=everyone) == pytest.approx(
        {"own_accuracy": 5 / 8, "own_accuracy_worst": 1 / 2, "own_accuracy_std": 1 / 8}
    )


def test_shares_are_those_of_the_partitions() -> None:
    clients = tiny_clients()
    labels = clients.splits.private.labels
    every = class_shares(clients, None)
    np.testing.assert_allclose(every.sum(1), 1)
    for k, own in enumerate(clients.partitions):
        for c, share in enumerate(class_shares(clients, k)):
            assert share == every[k, c] == pytest.approx((labels[own] == c).mean())


def played(folder: Path, *words: str) -> tuple[dict[str, Any], Any]:
    few = ["clients.num_clients=5", "clients.training.epochs=3", "partition=classes_per_client"]
    federated(folder, "probes=personal", *few, *words)
    line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    return line, pq.read_table(folder / "clients.parquet").to_pandas()


def test_clients_are_better_on_their_own_classes_than_on_all(tmp_path: Path) -> None:
    line, table = played(tmp_path / "inline", "sim=inline")
    assert (table["own_accuracy"] > table["accuracy"] + 0.2).all()
    mean = table["own_accuracy"].mean()
    assert line["clients"]["own_accuracy"]["mean"] == pytest.approx(mean)
    there = line["probes"]
    assert there["student_own_accuracy_worst"] <= there["student_own_accuracy"]
    other, _ = played(tmp_path / "ray", "sim=ray")
    assert other["clients"]["own_accuracy"] == line["clients"]["own_accuracy"]


def test_the_global_model_of_parameter_averaging_is_asked_for_everyone(tmp_path: Path) -> None:
    words = "strategy=averaging", "clients=same", "sim=inline"
    there = played(tmp_path / "run", *words)[0]["probes"]
    assert 0 < there["student_own_accuracy_std"] < 0.5
    assert there["student_own_accuracy_worst"] < there["student_own_accuracy"]
