"""The examples: each one file and YAML, run as a user does, from another folder, on both pools."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message, RecordDict
from torch.nn.functional import cross_entropy

from clients.messages.arrays import write_arrays
from clients.messages.requests import node_id_of
from tests.places import ROOT
from tests.quick_runs import result_of

EXAMPLES = ROOT / "examples"
FEDPROTO = ["strategy=fedproto", "clients=same_width", "partition=iid", "rounds=3"]


@pytest.fixture
def fedproto() -> Iterator[Any]:
    sys.path.insert(0, str(EXAMPLES / "fedproto"))
    import fedproto

    yield fedproto
    sys.path.remove(str(EXAMPLES / "fedproto"))


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.py")), ids=lambda path: path.stem)
def test_an_example_imports_nothing_private(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            assert not [name for name in names if name.startswith("_")]


# --- FedProto ---


def test_the_prototype_loss_by_hand(fedproto: Any) -> None:
    """Two classes; nobody has class 1."""
    prototypes = torch.tensor([[1.0, 0.0, 2.0], [torch.nan] * 3])
    outputs = torch.tensor([[0.0, 0.0, 3.0, 0.0, 1.0], [1.0, 0.0, 9.0, 9.0, 9.0]])
    outputs.requires_grad_()
    labels = torch.tensor([0, 1])
    found = fedproto.prototype_loss(outputs, labels, prototypes=prototypes, weight=0.5)
    plain = cross_entropy(outputs[:, :2], labels, reduction="none")
    torch.testing.assert_close(found - plain, torch.tensor([0.5 * (4 + 0 + 1) / 3, 0.0]))
    (gradient,) = torch.autograd.grad(found.sum(), outputs)
    # weight * 2 (f - p) / D
    torch.testing.assert_close(gradient[0, 2:], 0.5 * 2 * torch.tensor([2.0, 0.0, -1.0]) / 3)
    assert gradient[1, 2:].tolist() == [0.0] * 3


def test_prototypes_are_averaged_over_those_who_have_the_class(fedproto: Any) -> None:
    strategy = fedproto.FedProto(test=type("Test", (), {"num_classes": 3}), seed=0)
    replies = []
    for k, (classes, means) in enumerate([([0, 2], [[1, 2], [5, 5]]), ([0], [[3, 6]])]):
        asked = Message(RecordDict(), node_id_of(k), "train.prototypes")
        arrays = {"classes": np.array(classes), "means": np.array(means, np.float32)}
        content = RecordDict({"prototypes": write_arrays(arrays)})
        replies.append(Message(content, reply_to=asked))
    strategy.aggregate_train(1, replies)
    expected = [[2, 4], [np.nan, np.nan], [5, 5]]
    np.testing.assert_array_equal(strategy.prototypes, np.array(expected, np.float32))
    other = fedproto.FedProto(test=type("Test", (), {"num_classes": 3}), seed=0)
    other.restore(strategy.state())
    np.testing.assert_array_equal(other.prototypes, strategy.prototypes)
    (asked,) = other.ask(2, [node_id_of(0)], fedproto.TRAIN)
    assert isinstance(asked.content["prototypes"], ArrayRecord)


def test_fedproto_learns_and_has_the_same_bits_on_both_pools(tmp_path: Path) -> None:
    words = ["--config-dir", str(EXAMPLES / "fedproto"), *FEDPROTO]
    runs = {}
    for name, more in (
        ("inline", ["sim=inline"]),
        ("ray", ["sim=ray"]),
        ("alone", ["sim=inline", "strategy.weight=0.0"]),
    ):
        runs[name] = result_of(tmp_path / name, *words, *more)
    for what in ("metrics_sha256", "clients_sha256"):
        assert runs["inline"][what] == runs["ray"][what]
        assert runs["inline"][what] != runs["alone"][what]
    assert runs["inline"]["clients_accuracy"]["mean"] > 0.7
