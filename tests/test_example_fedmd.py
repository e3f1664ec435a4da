"""The example FedMD: digest, revisit, answer; on both pools."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict

from clients.messages.accumulator import part_message
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import node_id_of
from tests.example_runs import EXAMPLES, both_pools, imported
from tests.federations import SEED, inline, run_ours, simulated, tiny_clients
from tests.quick_runs import federated

NUMBERS = {"public_inputs": 20, "digest_epochs": 1, "public_epochs": 0, "fraction": 1.0}


def made(clients: Any, **changes: Any) -> Any:
    about = {"proxy": clients.splits.proxy, "messenger": None, "seed": SEED}
    return imported("fedmd").FedMD(**(about | NUMBERS | changes))


def test_the_digest_loss_by_hand() -> None:
    """(|1 - 3| + |2 - 1|) / 2, and its gradient is a sign over C."""
    logits = torch.tensor([[1.0, 2.0]], requires_grad=True)
    loss = imported("fedmd").absolute_error(logits, torch.tensor([[3.0, 1.0]]))
    assert loss.tolist() == [1.5]
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[-0.5, 0.5]]


def test_the_consensus_is_the_mean_of_logits_also_of_parts() -> None:
    strategy = made(tiny_clients(), public_inputs=2)
    said = [[[1.0, 2.0], [3.0, 4.0]], [[3.0, 0.0], [3.0, 8.0]]]
    replies = []
    for k, logits in enumerate(said):
        asked = Message(RecordDict(), node_id_of(k), "train.fedmd")
        content = RecordDict({"logits": write_arrays({"logits": np.array(logits, np.float32)})})
        replies.append(Message(content, reply_to=asked))
    reducer = strategy.intake(1, "train")
    part = part_message(reducer.fold([reply.content for reply in replies]), replies[0])
    for came in (replies, [part]):
        strategy.consensus = None
        strategy.aggregate_train(1, came)
        assert strategy.consensus.tolist() == [[2.0, 1.0], [3.0, 6.0]]
    other = made(tiny_clients())
    other.restore(strategy.state())
    assert other.consensus.tolist() == strategy.consensus.tolist()


def test_the_inputs_asked_about_are_those_digested_in_the_next_round() -> None:
    strategy = made(tiny_clients())
    sent: list[Any] = []
    grid: Any = type("Grid", (), {"get_node_ids": lambda self: [node_id_of(0)]})()
    for server_round in (1, 2, 3):
        (message,) = strategy.configure_train(server_round, None, None, grid)
        sent.append({n: read_arrays(r) for n, r in message.content.array_records.items()})
        strategy.consensus = np.zeros((20, 4), np.float32)
    assert "consensus" not in sent[0]
    for before, after in pairwise(sent):
        assert after["consensus"]["ids"].tolist() == before["asked"]["ids"].tolist()
    assert sent[0]["asked"]["ids"].tolist() != sent[1]["asked"]["ids"].tolist()


def spread(digest_epochs: int) -> float:
    """How far clients' last answers to the public inputs are from their mean."""
    clients = tiny_clients(4)
    strategy, said = made(clients, digest_epochs=digest_epochs), list[Any]()
    gather = strategy.aggregate_train

    def listening(server_round: int, replies: Any) -> Any:
        said[:] = [read_arrays(reply.content["logits"])["logits"] for reply in replies]
        return gather(server_round, replies)

    strategy.intake, strategy.aggregate_train = lambda server_round, phase: None, listening
    run_ours(inline(simulated(clients, strategy)), clients, strategy, 3)
    logits = np.stack(said)
    return float(np.abs(logits - logits.mean(0)).mean())


def test_digesting_brings_clients_together() -> None:
    assert spread(10) < 0.8 * spread(0)


def test_public_labels_are_learnt_in_round_1_if_asked_for(tmp_path: Path) -> None:
    words = ["--config-dir", str(EXAMPLES / "fedmd"), "strategy=fedmd", "rounds=1"]
    found = {
        epochs: federated(tmp_path / str(epochs), *words, f"strategy.public_epochs={epochs}")
        for epochs in (0, 10)
    }
    accuracy = {k: run["clients_accuracy"]["mean"] for k, run in found.items()}
    assert accuracy[10] > accuracy[0] + 0.1


@pytest.mark.slow
def test_fedmd_has_the_same_bits_on_both_pools_and_goes_on(tmp_path: Path) -> None:
    words = ["--config-dir", str(EXAMPLES / "fedmd"), "strategy=fedmd", "clients.num_clients=5"]
    words, none = [*words, "rounds=3"], "strategy.digest_epochs=0"
    runs = both_pools(tmp_path, words, "fedmd.FedMD", none=none)
    assert runs["inline"]["clients_accuracy"]["mean"] > runs["none"]["clients_accuracy"]["mean"]


@pytest.mark.parametrize("logits", [np.zeros((2, 1)), np.zeros((3, 4)), np.zeros(2), None])
def test_logits_that_cannot_be_summed_are_refused(logits: Any) -> None:
    strategy = made(tiny_clients(), public_inputs=2)
    grid: Any = type("Grid", (), {"get_node_ids": lambda self: [node_id_of(0)]})()
    (asked,) = strategy.configure_train(1, None, None, grid)
    good = Message(RecordDict({"logits": write_arrays({"logits": np.zeros((2, 4), np.float32)})}),
                   reply_to=asked)  # fmt: skip
    assert strategy.fault(asked, good) is None
    said = {} if logits is None else {"logits": logits.astype(np.float32)}
    bad = Message(RecordDict({"logits": write_arrays(said)}), reply_to=asked)
    found = None if logits is None else f"float32{[*logits.shape]}"
    assert strategy.fault(asked, bad) == f"'logits' is {found}, expected float32[2, 4]"


def test_a_messenger_is_refused() -> None:
    with pytest.raises(ValueError, match="clients.messenger: FedMD"):
        made(tiny_clients(), messenger=object())
