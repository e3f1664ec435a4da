"""Accuracy on classes as a client has them: by hand, and in runs on both pools."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from clients.handlers.function_probes import class_shares, own_examples
from sim.analysis.probes.personal import own_accuracy, own_examples_accuracy
from tests.federations import SEED, tiny_clients
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


def test_accuracy_on_own_examples_is_of_those_alone() -> None:
    own = np.array([[1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]], dtype=bool)
    name = "own_examples_accuracy"  # right are the first three, and the fifth
    for mine, expected in zip(own, (1 / 2, 1 / 2, None), strict=True):
        found = own_examples_accuracy(nn.Identity(), INPUTS, LABELS, own_examples=mine)
        assert found == ({} if expected is None else {name: expected})
    own[0, 3] = False
    found = own_examples_accuracy(nn.Identity(), INPUTS, LABELS, own_examples=own)
    assert found == {name: 3 / 4, f"{name}_worst": 1 / 2, f"{name}_std": 1 / 4}
    nobody = own_examples_accuracy(nn.Identity(), INPUTS, LABELS, own_examples=own[2:])
    assert nobody == {}


@pytest.mark.parametrize("sim", ["inline", "ray"])
def test_clients_are_asked_about_the_test_examples_of_their_owners(
    sim: str, tmp_path: Path
) -> None:
    """Of the two wards in which age means the opposite, each knows its own."""
    rng = np.random.default_rng(0)
    rows = [(n % 2, rng.normal() * 3) for n in range(400)]
    lines = [f"{age:.3f},{-age:.3f},w{ward},{int((age > 0) == ward)}\n" for ward, age in rows]
    (tmp_path / "wards.csv").write_text("age,youth,ward,kind\n" + "".join(lines))
    words = ["data=table", f"data.source.path={tmp_path / 'wards.csv'}", f"seed={SEED}",
             "data.source.owner=ward", "partition=natural", "clients.num_clients=2",
             "clients=mixed_tabular", "student=mlp", "strategy=distillation",
             "strategy.distil.epochs=1", "probes=own_examples"]  # fmt: skip
    federated(tmp_path / "run", *words, sim=sim)
    table = pq.read_table(tmp_path / "run" / "clients.parquet").to_pandas()
    assert (table["own_examples_accuracy"] > 0.9).all()
    assert (table["accuracy"] < 0.65).all()
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert line["clients"]["own_examples_accuracy"]["min"] > 0.9
    assert line["probes"]["student_own_examples_accuracy"] < 0.65


@pytest.mark.parametrize("labels", [torch.zeros(6, 1), torch.zeros(6, 2, dtype=torch.long)])
def test_numbers_and_several_labels_are_refused(labels: torch.Tensor) -> None:
    own = np.ones((2, 6), dtype=bool)
    with pytest.raises(ValueError, match="own_examples_accuracy: labels are no single classes"):
        own_examples_accuracy(nn.Identity(), INPUTS, labels, own_examples=own)


def test_where_nobody_says_whose_examples_are_it_is_refused() -> None:
    clients = tiny_clients()
    examples = clients.splits.test
    with pytest.raises(ValueError, match="does not say whose its examples are"):
        own_examples(clients, examples, 0)
    private = replace(clients.splits.private, owners=clients.splits.private.labels)
    clients.splits = replace(clients.splits, private=private)
    with pytest.raises(ValueError, match="nobody says whose the probed examples are"):
        own_examples(clients, examples, 0)
    owned = replace(examples, owners=examples.labels)
    for k, part in enumerate(clients.partitions):
        expected = np.isin(examples.labels, private.labels[part])
        np.testing.assert_array_equal(own_examples(clients, owned, k), expected)
        np.testing.assert_array_equal(own_examples(clients, owned, None)[k], expected)
    with pytest.raises(ValueError, match="numbers owners otherwise than clients do"):
        own_examples(clients, replace(owned, owner_values=tuple(range(10))), 0)


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
