"""FD and FedDistill+: vectors by hand, what they are where they do nothing, both pools, faults."""

import json
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from safetensors.numpy import load_file

from clients.handlers.class_logits import CLASS_LOGITS, regularised, wanted_logits
from clients.messages.arrays import write_arrays
from clients.messages.requests import node_id_of
from clients.training.objective import Outputs
from conf.errors import Stopped
from strategies.server.federated_distillation import FedDistillPlus, FederatedDistillation
from tests.federations import SEED, tiny_clients
from tests.quick_runs import federated, hashes

FEW = ["data=blobs", "data.source.num_examples=200", "partition=iid", f"seed={SEED}",
       "clients.num_clients=4", "clients.training.epochs=1", "rounds=3"]  # fmt: skip
ALONE = ["clients.num_clients=1"]
SAME = [*FEW, "clients=same", "student=mlp", "student.hidden=[4]"]
TEST = tiny_clients().splits.test


def last_line(folder: Path) -> Any:
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])


def said(means: Any, counts: Any) -> dict[str, Any]:
    return {"means": np.array(means, np.float32), "counts": np.array(counts)}


def reply_of(client_id: int, handler: Any, content: dict[str, Any], examples: int) -> Message:
    asked = Message(RecordDict(), node_id_of(client_id), handler.kind)
    metrics = MetricRecord({"num-examples": examples})
    about = RecordDict({CLASS_LOGITS: write_arrays(content), "metrics": metrics})
    return Message(about, reply_to=asked)


# --- by hand ---


def test_a_client_is_held_to_the_mean_of_the_others() -> None:
    """Class 0 has three holders, class 1 this client alone, class 2 others, class 3 nobody."""
    sums = np.array([[9, 3, 0, 0], [0, 5, 0, 0], [0, 0, 8, 2], [0, 0, 0, 0]], np.float32)
    server = {"sums": sums, "holders": np.array([3, 1, 2, 0])}
    own = said([[1, 1, 0, 0], [0, 5, 0, 0], [0] * 4, [0] * 4], [7, 2, 0, 0])
    nobody = [torch.nan] * 4
    found = wanted_logits(server, own, 4)
    # N = 3: (3 * (3, 1) - (1, 1)) / 2
    wanted = torch.tensor([[4.0, 1, 0, 0], nobody, [0, 0, 4, 1], nobody])
    torch.testing.assert_close(found, wanted, equal_nan=True)
    wanted = torch.tensor([[3.0, 1, 0, 0], [0, 5, 0, 0], [0, 0, 4, 1], nobody])
    torch.testing.assert_close(wanted_logits(server, None, 4), wanted, equal_nan=True)
    assert wanted_logits({}, None, 2).isnan().all()


@pytest.mark.parametrize(
    ("regulariser", "apart"),
    # Logits (0, 0), wanted (0, 2): probs (1, e^2) / (1 + e^2) = (p, q).
    [("kl", lambda p, q: p * log(p) + q * log(q) + log(2)), ("mse", lambda p, q: 4 / 2),
     ("cross_entropy", lambda p, q: log(2))],
)  # fmt: skip
def test_what_clients_minimise_by_hand(regulariser: str, apart: Any) -> None:
    logits = torch.zeros(2, 2)
    anchors = {CLASS_LOGITS: torch.tensor([[0.0, 2.0], [torch.nan, torch.nan]])}
    numbers: dict[str, Any] = {"weight": 0.5, "regulariser": regulariser}
    found = regularised(Outputs(logits, logits), torch.tensor([0, 1]), anchors, **numbers)
    more = 0.5 * apart(1 / (1 + exp(2)), exp(2) / (1 + exp(2)))
    torch.testing.assert_close(found, torch.tensor([log(2) + more, log(2)]))  # of 1 nothing is said


def test_a_class_that_nobody_has_said_anything_of_leaves_no_gradient_that_is_nan() -> None:
    logits = torch.zeros(1, 2, requires_grad=True)
    anchors = {CLASS_LOGITS: torch.full((2, 2), torch.nan)}
    loss = regularised(
        Outputs(logits, logits), torch.tensor([0]), anchors, weight=1.0, regulariser="kl"
    )
    loss.sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.5, 0.5]]))  # p - y


def test_the_server_sums_over_holders_and_knows_who_is_in() -> None:
    strategy = FederatedDistillation(test=TEST, seed=0)
    classes, train = TEST.task.num_classes, strategy.handlers[0]
    one, two = np.zeros((2, classes, classes), np.float32)
    one[0], two[0], two[1] = 1, 3, 5
    counts = np.zeros((2, classes), np.int64)
    counts[0, 0], counts[1, :2] = 9, 2
    replies = [
        reply_of(0, train, {"means": one, "counts": counts[0]}, 9),
        reply_of(3, train, {"means": two, "counts": counts[1]}, 4),
    ]
    _, metrics = strategy.aggregate_train(1, replies)
    assert strategy.said["sums"][:3, 0].tolist() == [4, 5, 0]
    assert strategy.said["holders"].tolist() == [2, 1] + [0] * (classes - 2)
    assert strategy.said["in"].tolist() == [node_id_of(0), node_id_of(3)]
    assert metrics == {"known-classes": 2.0}
    again = FederatedDistillation(test=TEST, seed=0)
    again.restore(strategy.state())
    assert again.said.keys() == strategy.said.keys()
    assert strategy.aggregate_train(2, []) == (None, None)  # what was said stays


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (said([[1.0, 0], [0, 0]], [3, 0]), None),
        (said([[1.0, 0], [0, 0]], [2, 0]), "no counts of its 3 examples"),
        (said([[1.0, 0], [0, 0]], [4, -1]), "no counts of its 3 examples"),
        (said([[1.0, 0]], [3]), "are of shapes"),
        ({"means": np.zeros((2, 2))}, "are of shapes"),
    ],
)
def test_mean_logits_that_are_none_are_a_fault(content: dict[str, Any], line: str | None) -> None:
    train = FederatedDistillation(test=TEST, seed=0).handlers[0]
    assert train.fault is not None
    found = train.fault(Message(RecordDict(), 1, train.kind), reply_of(0, train, content, 3))
    assert found is None if line is None else found is not None and line in found


def test_arrays_that_were_not_sent_are_a_fault() -> None:
    train = FedDistillPlus(test=TEST, seed=0).handlers[0]
    sent = write_arrays({"w": np.zeros(2)})
    asked = Message(RecordDict({"arrays": sent, "config": ConfigRecord({})}), 1, train.kind)
    assert train.fault is not None
    reply = reply_of(0, train, said([[1.0, 0], [0, 0]], [3, 0]), 3)
    assert train.fault(asked, reply) == "it sent other arrays than it got"
    reply.content["arrays"] = sent
    assert train.fault(asked, reply) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("weight", -1.0), ("weight", float("nan")), ("regulariser", "l1"), ("fraction", 0.0),
     ("fraction_evaluate", 1.1)],
)  # fmt: skip
def test_numbers_out_of_range_are_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^strategy.{name}={value}: expected"):
        FederatedDistillation(test=TEST, seed=0, **{name: value})


def test_feddistill_plus_wants_clients_of_one_architecture(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="FedDistillPlus averages parameters, so all clients need"):
        federated(tmp_path / "run", "strategy=feddistill_plus", *FEW)


# --- what it is where it does nothing ---


def close(one: Path, other: Path) -> bool:
    found, wanted = (load_file(folder / "student.safetensors") for folder in (one, other))
    return all(np.allclose(found[k], wanted[k], rtol=1e-4, atol=1e-6) for k in wanted)


@pytest.mark.parametrize(
    ("words", "same"),
    [(["strategy.weight=0"], True), (["strategy.weight=1"], False),
     ([*ALONE, "strategy.leave_one_out=true"], True),
     ([*ALONE, "strategy.leave_one_out=false"], False)],
)  # fmt: skip
def test_without_others_or_weight_feddistill_plus_is_federated_averaging(
    words: list[str], same: bool, tmp_path: Path
) -> None:
    federated(tmp_path / "plus", "strategy=feddistill_plus", *SAME, *words)
    few = [word for word in words if not word.startswith("strategy.")]
    federated(tmp_path / "fedavg", "strategy=averaging", *SAME, *few)
    assert close(tmp_path / "plus", tmp_path / "fedavg") == same


def test_a_client_alone_learns_from_its_labels(tmp_path: Path) -> None:
    words = ["strategy=fd", *SAME, *ALONE]
    runs = [
        federated(tmp_path / str(number), *words, more)
        for number, more in enumerate(("strategy.weight=0", "strategy.weight=5"))
    ]
    assert runs[0]["metrics_sha256"] == runs[1]["metrics_sha256"]


# --- runs ---


def test_fd_is_the_same_on_both_pools_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    """Clients of two architectures, of which a half takes part."""
    words = ["strategy=fd", *FEW, "strategy.fraction=0.5", "strategy.weight=3"]
    runs = {
        name: federated(tmp_path / name, *words, *more, sim=sim)
        for name, sim, more in (
            ("inline", "inline", []), ("ray", "ray", []),
            ("short", "inline", ["rounds=2", "checkpoint_every=1"]),
            ("weak", "inline", ["strategy.weight=0"]),
        )
    }  # fmt: skip
    assert hashes(runs["inline"]) == hashes(runs["ray"])
    assert hashes(runs["inline"]) != hashes(runs["weak"])
    assert runs["inline"]["failures"] == 0
    resumed = federated(tmp_path / "short", resumed=["rounds=3"])
    assert resumed["clients_sha256"] == runs["inline"]["clients_sha256"]


def test_what_crosses_the_wire_does_not_grow_with_networks(tmp_path: Path) -> None:
    """From each client C x C numbers of 4 bytes, counts of 8, and headers."""
    words = ["strategy=fd", *FEW, "strategy.fraction_evaluate=0"]
    federated(tmp_path / "small", *words)
    federated(tmp_path / "large", *words, "clients.architectures.mlp.model.hidden=[500]")
    sent = last_line(tmp_path / "small")["bytes"]
    assert sent == last_line(tmp_path / "large")["bytes"]
    classes, headers = 4, 400
    assert 0 < sent["reply"] - 4 * (4 * classes**2 + 8 * classes) < 4 * headers


def test_clients_say_how_good_they_are_on_their_own_classes(tmp_path: Path) -> None:
    words = ["strategy=fd", *FEW[:2], *FEW[3:], "partition=classes_per_client"]
    federated(tmp_path / "run", *words, "partition.classes=1", "clients.training.epochs=40")
    table = pq.read_table(tmp_path / "run" / "clients.parquet")
    own = [v for v in table.column("own_classes_accuracy").to_pylist() if v is not None]
    everything = [v for v in table.column("accuracy").to_pylist() if v is not None]
    # Who knows one class says it of all.
    assert min(own) == 1.0
    assert max(everything) < 0.6


def test_a_codec_of_parameters_is_refused_where_none_are_sent(tmp_path: Path) -> None:
    for name, word in (("up", "clients/codec=uint8"), ("down", "clients.codec_down=uint8")):
        with pytest.raises(Exception, match="sends? no parameters"):
            federated(tmp_path / name, "strategy=fd", "data=blobs", word)
