"""The example FedGen: what it minimises by hand, what its generator learns, on both pools."""

from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from clients.messages.arrays import write_arrays
from clients.training.objective import Outputs
from tests.commands import run_py
from tests.example_runs import EXAMPLES, both_pools, imported
from tests.federations import inline, run_ours, simulated, student_of, tiny_clients
from tests.quick_runs import QUICK

WORDS = ["--config-dir", str(EXAMPLES / "fedgen"), "strategy=fedgen", "clients=same", *QUICK[:2]]


@pytest.fixture
def fedgen() -> Any:
    return imported("fedgen")


def test_what_clients_minimise_by_hand(fedgen: Any) -> None:
    # One latent (1, 2), of class 1. The head is the identity without bias: CE = log(1 + e^(1 - 2)).
    head = {"classifier.weight": torch.eye(2), "classifier.bias": torch.zeros(2)}
    anchors = {
        "latents": torch.tensor([[1.0, 2.0]]),
        "drawn": torch.tensor([1]),
        "said": torch.tensor([[[20.0, -20.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]),
        "alpha": torch.tensor(3.0),
    }
    found = fedgen.penalty(head, anchors)
    torch.testing.assert_close(found, torch.tensor(3 * log(1 + exp(-1))))
    # Logits (0, 0): CE is log 2 for all; KL to (1, 0) is log 2, to (1/2, 1/2) it is 0. Of two draws
    # the examples 0 and 2 have the first, which says (1, 0) of label 0 alone; example 1 the second.
    logits, rows = torch.zeros(4, 2), torch.tensor([0, 2, 1, 2])
    found = fedgen.loss(Outputs(logits, logits, rows=rows), torch.tensor([0, 0, 0, 1]), anchors)
    torch.testing.assert_close(found, torch.tensor([4 * log(2), 4 * log(2), log(2), log(2)]))


def test_diversity_by_hand(fedgen: Any) -> None:
    # Of four pairs two are of one with itself; the others: |G - G'| = (2 + 0) / 2, noise 3^2 = 9.
    latents, noise = torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([[0.0], [3.0]])
    torch.testing.assert_close(fedgen.alike(latents, noise), torch.tensor(exp(-9 / 2)))
    assert fedgen.alike(latents, noise * 0) == 1


def test_the_generator_learns_what_the_heads_agree_about(fedgen: Any) -> None:
    student = student_of(tiny_clients())
    strategy = fedgen.FedGen(student=student, seed=0, epochs=200, diversity=0.0)
    seen = torch.arange(4)
    classes, features = student.state_dict()["classifier.weight"].shape
    rng = torch.Generator().manual_seed(0)
    heads = [
        [torch.randn(classes, features, generator=rng), torch.zeros(classes)] for _ in range(3)
    ]
    shares = torch.full((3, classes), 1 / 3)
    torch.manual_seed(0)
    assert strategy.teach(heads, shares, seen, 0.01) < 0.1
    # Labels that only the first client has seen: the others' heads are not asked about them.
    shares = torch.tensor([[1.0] * classes, [0.0] * classes, [0.0] * classes])
    strategy.teach(heads, shares, seen, 0.01)
    labels = torch.arange(4).repeat(16)
    made = strategy.generator.eval()(torch.randn(64, strategy.generator.noise), labels)
    hits = [float(((made @ w.T).argmax(1) == labels).float().mean()) for w, _ in heads]
    assert hits[0] > 0.95 > max(hits[1:])


def test_shares_of_a_label_are_those_of_the_cohort(
    fedgen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = fedgen.FedGen(student=student_of(tiny_clients()), seed=0)
    arrays = write_arrays({name: np.zeros(2, np.float32) for name in fedgen.HEAD})
    seen = []
    monkeypatch.setattr(
        strategy, "teach", lambda _, shares, now, lr: seen.append((shares, now, lr)) or 0.0
    )
    asked = Message(RecordDict(), dst_node_id=1, message_type="train.fedgen")
    replies = []
    for counts in ([3, 0, 1, 0], [1, 0, 0, 4]):
        reply = RecordDict({"arrays": arrays, "metrics": ConfigRecord({"num-examples": 4})})
        reply["counts"] = write_arrays({"by-class": np.array(counts, np.float32)})
        replies.append(Message(reply, reply_to=asked))
    strategy.aggregate_train(1, replies)
    strategy.aggregate_train(3, replies[1:])
    assert seen[0][0].tolist() == [[0.75, 0, 1, 0], [0.25, 0, 0, 1]]
    assert [now.tolist() for _, now, _ in seen] == [[0, 2, 3], [0, 3]]  # the generator's labels
    assert strategy.labels == [0, 2, 3]  # the clients'
    assert [lr for *_, lr in seen] == [3e-4, 3e-4 * 0.98**2]


def test_mixed_shares_are_means_over_the_labels_of_a_batch(fedgen: Any) -> None:
    # Head 0 takes all for class 0, head 1 for class 1: they cost 0 and 20, or 20 and 0, by label.
    # Of two labels drawn, one each, each client has the share 1/2 of both: 20/2 on average. By
    # label each client is asked of what it has: nothing.
    student = student_of(tiny_clients())
    classes, features = student.state_dict()["classifier.weight"].shape
    heads = [(torch.zeros(classes, features), torch.zeros(classes)) for _ in range(2)]
    for k, (_, bias) in enumerate(heads):
        bias[k] = 20.0
    shares = torch.zeros(2, classes)
    shares[0, 0] = shares[1, 1] = 1.0
    found = {}
    for mixed in (False, True):
        numbers = {"epochs": 1, "diversity": 0.0, "batch_size": 1000, "mixed_shares": mixed}
        strategy = fedgen.FedGen(student=student, seed=0, **numbers)
        torch.manual_seed(0)
        found[mixed] = strategy.teach(heads, shares, torch.arange(2), 0.0)
    assert found[False] == pytest.approx(0.0, abs=1e-6)
    assert found[True] == pytest.approx(10.0, abs=0.1)


@pytest.mark.parametrize("counts", [[1, 2], [0, 0, 0, 0], [-1, 5, 0, 0], [1, 1, 1, 2], None])
def test_counts_that_are_none_are_a_fault(fedgen: Any, counts: Any) -> None:
    arrays = write_arrays({fedgen.HEAD[0]: np.zeros((4, 2)), fedgen.HEAD[1]: np.zeros(4)})
    asked = Message(RecordDict({"arrays": arrays}), dst_node_id=1, message_type="train.fedgen")
    said = {} if counts is None else {"by-class": np.array(counts, np.float32)}
    reply = Message(RecordDict({"arrays": arrays, "counts": write_arrays(said)}), reply_to=asked)
    reply.content["metrics"] = MetricRecord({"num-examples": 4})
    assert "no counts of 4 examples of 4 classes" in fedgen.fault(asked, reply)
    reply.content["counts"] = write_arrays({"by-class": np.ones(4, np.float32)})
    assert fedgen.fault(asked, reply) is None


def test_it_is_the_same_on_both_pools_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    runs = both_pools(tmp_path, [*WORDS, "rounds=3"], "fedgen.FedGen", strong="strategy.alpha=5")
    assert runs["inline"]["failures"] == 0


NUMBERS = {"alpha": 5.0, "epochs": 2, "lr": 0.01, "diversity": 0.0, "batch_size": 4, "samples": 4,
           "fraction": 0.5, "weight_decay": 0.5, "decay": 0.5,
           "mixed_shares": True}  # fmt: skip


@pytest.fixture(scope="module")
def student() -> Any:
    """What comes of three rounds with some numbers, each asked for once."""
    known: dict[str, str] = {}

    def after(**numbers: Any) -> str:
        if str(numbers) not in known:
            clients = tiny_clients(architectures=["linear"] * 5)
            strategy = imported("fedgen").FedGen(
                student=student_of(clients), seed=0, **{"epochs": 5, **numbers}
            )
            run = run_ours(inline(simulated(clients, strategy)), clients, strategy, rounds=3)
            known[str(numbers)] = run.sha256
        return known[str(numbers)]

    return after


@pytest.mark.parametrize("name", NUMBERS)
def test_each_of_its_numbers_matters(name: str, student: Any) -> None:
    assert student(**{name: NUMBERS[name]}) != student()


@pytest.mark.parametrize("name", ["fedgen", "scaffold"])
def test_clients_of_unlike_architectures_are_refused_before_anything_is_begun(
    name: str, tmp_path: Path
) -> None:
    words = ["--config-dir", str(EXAMPLES / name), f"strategy={name}"]
    done = run_py(*words, "clients.training.optimizer.momentum=0", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode != 0
    assert "averages parameters, so all clients need the student's architecture" in done.stderr
    assert "Traceback" not in done.stderr
