"""The examples: each one file and YAML, run as a user does, from another folder, on both pools."""

import ast
import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from textwrap import indent
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from flwr.app import ConfigRecord, Context, Message, RecordDict
from safetensors.numpy import load_file
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from clients.execution.model_cache import as_tensors
from clients.messages.accumulator import part_message
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import node_id_of
from clients.models.factory import parameters_of
from clients.training.objective import Objective, Outputs
from conf.plugin_yaml import plugin_in
from stillhouse.engine_points import engine_points
from strategies.conformance.command import main
from tests.example_runs import EXAMPLES, both_pools, imported
from tests.federations import student_of, tiny_clients, trainer
from tests.places import ROOT
from tests.quick_runs import QUICK, federated, modules_of, result_of

FEDPROTO = ["strategy=fedproto", "clients=same_width", "partition=iid", "rounds=3"]


@pytest.fixture
def fedproto() -> Any:
    return imported("fedproto")


FILES = sorted(EXAMPLES.rglob("*.py"))


def test_examples_import_nothing_private() -> None:
    assert len(FILES) >= 3
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            words = [] if not isinstance(node, ast.Attribute) else [node.attr]
            if isinstance(node, ast.Import | ast.ImportFrom):
                whole = [str(getattr(node, "module", "")), *(alias.name for alias in node.names)]
                words = [word for name in whole for word in name.split(".")]
            private = [word for word in words if word.startswith("_") and not word.endswith("__")]
            assert not private, f"{path.name}: {private}"


PRESETS = sorted(EXAMPLES.glob("*/clients/*.yaml"))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_clients_of_an_example_take_every_group_that_ours_take(path: Path) -> None:
    """Else `clients/view=rotated` ends in a line of Hydra's."""
    assert len(PRESETS) == 7
    ours, theirs = (
        {key for each in yaml.safe_load(file.read_text())["defaults"] if each != "_self_"
         for key in ([each] if isinstance(each, str) else each)}
        for file in (ROOT / "conf/clients/same.yaml", path)
    )  # fmt: skip
    assert theirs == ours or len(theirs) == 1  # it is another, with other architectures


def test_the_code_of_the_page_on_methods_runs_as_it_stands(tmp_path: Path) -> None:
    blocks = re.findall(r"```(python|yaml)\n(.*?)```", (ROOT / "docs/methods.md").read_text(), re.S)
    code = [block for kind, block in blocks if kind == "python"]
    handler, strategy, sums = code
    *_, config = (block for kind, block in blocks if kind == "yaml")
    total, _, rest = sums.partition("def intake")
    method, _, fault = f"def intake{rest}".partition("def fault")
    method = indent(method, "    ")
    (tmp_path / "mine" / "strategy").mkdir(parents=True)
    (tmp_path / "mine" / "strategy" / "counting.yaml").write_text(config)
    code = "\n".join([handler, total, f"def fault{fault}", strategy, method])
    (tmp_path / "mine" / "my_methods.py").write_text(code)
    words = ["--config-dir", str(tmp_path / "mine"), "strategy=counting", "rounds=2", "sim=inline"]
    words += QUICK[:2]
    result = result_of(tmp_path / "run", *words)
    assert (result["rounds"], result["failures"]) == (2, 0)
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["strategy"] == {"num_replies": 1.0}  # a part of all
    # the kit's clients know four classes
    (tmp_path / "mine" / "my_methods.py").write_text(code.replace("(10,)", "(4,)"))
    with modules_of(folder := str(tmp_path / "mine")):
        for words in (["strategy", "strategy/counting.yaml"], ["handler", "my_methods.COUNTS"]):
            assert main([*words, "--config-dir", folder], engine_points, plugin_in) == 0


# --- FedProto ---


def test_the_prototype_loss_by_hand(fedproto: Any) -> None:
    """Two classes; nobody has class 1."""
    prototypes = torch.tensor([[1.0, 0.0, 2.0], [torch.nan] * 3])
    logits, features = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[3.0, 0, 1], [9] * 3])
    features.requires_grad_()
    labels = torch.tensor([0, 1])
    outputs = Outputs(logits, logits, {"penultimate": features})
    anchors = {"prototypes": prototypes, "weight": torch.tensor(0.5)}
    found = fedproto.prototype_loss(outputs, labels, anchors)
    plain = cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(found - plain, torch.tensor([0.5 * (4 + 0 + 1) / 3, 0.0]))
    (gradient,) = torch.autograd.grad(found.sum(), features)
    # weight * 2 (f - p) / D
    torch.testing.assert_close(gradient[0], 0.5 * 2 * torch.tensor([2.0, 0.0, -1.0]) / 3)
    assert gradient[1].tolist() == [0.0] * 3


def test_prototypes_are_averaged_over_those_who_have_the_class(fedproto: Any) -> None:
    strategy = fedproto.FedProto(messenger=None, seed=0)

    def replies(*clients: Any) -> list[Message]:
        made = []
        for k, (there, means) in enumerate(clients):
            asked = Message(RecordDict(), node_id_of(k), "train.prototypes")
            arrays = {"there": np.array(there, bool), "means": np.array(means, np.float32)}
            made.append(Message(RecordDict({"prototypes": write_arrays(arrays)}), reply_to=asked))
        return made

    nothing = [0.0, 0.0]
    two = ([1, 0, 1], [[1, 2], nothing, [5, 5]]), ([1, 0, 0], [[3, 6], nothing, nothing])
    strategy.aggregate_train(1, replies(*two))
    assert strategy.prototypes["there"].tolist() == [True, False, True]
    assert strategy.prototypes["means"][[0, 2]].tolist() == [[2, 4], [5, 5]]
    strategy.aggregate_train(2, replies(([0, 1, 0], [nothing, [7, 8], nothing])))
    assert strategy.prototypes["there"].all()  # what nobody of the cohort has is kept
    assert strategy.prototypes["means"].tolist() == [[2, 4], [7, 8], [5, 5]]
    other = fedproto.FedProto(messenger=None, seed=0)
    other.restore(strategy.state())
    grid: Any = SimpleNamespace(get_node_ids=lambda: [node_id_of(0)])
    (asked,) = other.ask(3, grid, fedproto.TRAIN, 1.0)
    assert fedproto.prototypes_in(asked.content).tolist() == [[2, 4], [7, 8], [5, 5]]
    with pytest.raises(ValueError, match=r"clients.messenger: FedProto"):
        fedproto.FedProto(messenger=object(), seed=0)


@pytest.mark.slow
def test_fedproto_learns_and_has_the_same_bits_on_both_pools(tmp_path: Path) -> None:
    words = ["--config-dir", str(EXAMPLES / "fedproto"), *FEDPROTO]
    runs = both_pools(tmp_path, words, alone="strategy.weight=0.0 clients/profile=two_speeds")
    accuracy = {name: run["clients_accuracy"]["mean"] for name, run in runs.items()}
    assert accuracy["inline"] > 0.7
    assert accuracy["alone"] < 0.5  # nobody's features agree with the prototypes
    assert runs["alone"]["simulated_time_s"] > 0


# --- MOON ---


def test_the_contrastive_loss_by_hand() -> None:
    """Features (1, 0), global (1, 0), previous (0, 1): cosines 1 and 0."""
    logits = torch.zeros(1, 2)
    own, before, last = (
        Outputs(logits, logits, {"penultimate": torch.tensor([seen])})
        for seen in ([1.0, 0.0], [1.0, 0.0], [0.0, 1.0])
    )
    outputs = replace(own, others={"start": before, "previous": last})
    loss = imported("moon").contrastive_loss
    found = loss(outputs, torch.tensor([1]), {}, mu=3.0, temperature=0.5)
    expected = np.log(2) - 3 * np.log(np.exp(2) / (np.exp(2) + 1))
    assert float(found) == pytest.approx(expected, rel=1e-6)
    free = loss(outputs, torch.tensor([1]), {}, mu=0.0, temperature=0.5)
    assert float(free) == pytest.approx(np.log(2), rel=1e-6)


def test_moon_remembers_what_a_client_last_trained_not_what_it_was_sent() -> None:
    """Were the two one, the contrast would be the same of any network."""
    clients, example = tiny_clients(1, train=partial(trainer(), epochs=1)), imported("moon")
    sent = write_arrays(parameters_of(student_of(clients)))
    context = Context(1, node_id_of(0), {"partition-id": 0}, RecordDict(), {})
    alike: list[bool] = []

    def loss(outputs: Outputs, labels: torch.Tensor, anchors: Any) -> torch.Tensor:
        alike.append(torch.equal(outputs.of("start").logits, outputs.of("previous").logits))
        return cross_entropy(outputs.logits, labels, reduction="none")

    objective = Objective(loss, networks=("start", "previous"))
    for server_round in (1, 2):
        alike.clear()
        about = ConfigRecord({"server-round": server_round})
        request = Message(RecordDict({"arrays": sent, "config": about}), node_id_of(0), "train")
        (reply,) = example.train(clients, [request], [context], "cpu", objective=objective)
        assert context.state["previous"] == reply.content["arrays"] != sent
        assert {*alike} == {server_round == 1}  # who has not trained yet has only what it was sent


def test_moon_learns_by_its_contrast_and_without_it_is_federated_averaging(tmp_path: Path) -> None:
    same = ["clients=same", "partition=iid", "rounds=2", "strategy.fraction_evaluate=0.0",
            "clients.num_clients=5", "clients.training.epochs=5"]  # fmt: skip
    words = ["--config-dir", str(EXAMPLES / "moon"), "strategy=moon", *same]
    runs = {
        name: federated(tmp_path / name, *words, f"strategy.mu={mu}")
        for name, mu in (("moon", 1.0), ("plain", 0.0))
    }
    assert runs["moon"]["student_accuracy"] > 0.5
    assert runs["moon"]["student_sha256"] != runs["plain"]["student_sha256"]
    fedavg = federated(tmp_path / "fedavg", "strategy=averaging", *same, "clients.together=false")
    ours, theirs = (
        load_file(tmp_path / name / "student.safetensors") for name in ("plain", "fedavg")
    )
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-4, atol=1e-6)
    assert fedavg["student_accuracy"] == pytest.approx(runs["plain"]["student_accuracy"])


@pytest.mark.slow
def test_moon_has_the_same_bits_on_both_pools_and_goes_on(tmp_path: Path) -> None:
    words = ["--config-dir", str(EXAMPLES / "moon"), "strategy=moon", "clients=same", "rounds=3",
             "clients.num_clients=5", "clients.training.epochs=2"]  # fmt: skip
    both_pools(tmp_path, words, "moon.Moon")


# --- SCAFFOLD ---


def test_a_corrected_step_and_the_new_variate_by_hand() -> None:
    """One step of rate .1 from x with gradient g and c - c_k: c_k' is g (option II)."""
    example = imported("scaffold")
    clients = tiny_clients(1, train=partial(trainer(), epochs=1, batch_size=200))
    start = parameters_of(student_of(clients))
    rng = np.random.default_rng(0)
    control, own = (
        {n: rng.normal(size=v.shape).astype(np.float32) for n, v in start.items()} for _ in range(2)
    )
    asked = {"arrays": write_arrays(start), "control": write_arrays(control)}
    content = RecordDict({**asked, "config": ConfigRecord({"server-round": 1})})
    state = RecordDict({"control": write_arrays(own)})
    context = Context(1, node_id_of(0), {"partition-id": 0}, state, {})
    request = Message(content, node_id_of(0), "train.scaffold")
    (reply,) = example.train(clients, [request], [context], "cpu")
    heavy = tiny_clients(1, train=partial(trainer(), optimizer=partial(SGD, lr=0.1, momentum=0.9)))
    with pytest.raises(ValueError, match=r"expected optimizer\.momentum=0"):
        example.Scaffold.require_clients(heavy)
    (alone,) = clients.train([0], [as_tensors(start)], 1, "cpu")
    plain = alone.parameters
    for name, x in start.items():
        gradient = (x - plain[name]) / 0.1
        moved = read_arrays(reply.content["arrays"])[name]
        np.testing.assert_allclose(
            moved, x - 0.1 * (gradient + control[name] - own[name]), rtol=1e-4, atol=1e-5
        )
        after = read_arrays(context.state["control"])[name]
        np.testing.assert_allclose(after, gradient, rtol=1e-3, atol=1e-4)
        change = read_arrays(reply.content["control"])[name]
        np.testing.assert_allclose(change, after - own[name], rtol=1e-4, atol=1e-6)


def test_scaffold_aggregates_by_hand() -> None:
    student = torch.nn.Linear(1, 1, bias=False)
    strategy = imported("scaffold").Scaffold(student=student, num_clients=4, seed=0, rate=0.5)
    buffers = {"count": np.array(3), "mean": np.array([1.0], np.float32)}
    strategy.arrays = {"weight": np.array([[1.0]], np.float32), **buffers}
    replies = []
    for k, (end, moved) in enumerate([(3.0, 0.2), (5.0, 0.6)]):
        asked = Message(RecordDict(), node_id_of(k), "train.scaffold")
        arrays = {"weight": np.array([[end]], np.float32), "count": np.array(4 + k)}
        arrays["mean"] = np.array([2.0 + 2 * k], np.float32)
        control = {"weight": np.array([[moved]], np.float32)}
        content = {"arrays": write_arrays(arrays), "control": write_arrays(control)}
        replies.append(Message(RecordDict(content), reply_to=asked))
    reducer = strategy.intake(1, "train")
    part = part_message(reducer.fold([reply.content for reply in replies]), replies[0])
    control = strategy.control
    for came in (replies, [part]):
        strategy.control = dict(control)
        arrays, _ = strategy.aggregate_train(1, came)
        assert arrays["weight"].numpy().tolist() == [[1 + 0.5 * (4 - 1)]]
        assert arrays["count"].numpy() == 4  # 4.5 rounded: statistics are averaged as they are
        assert arrays["mean"].numpy().tolist() == [3.0]
        assert strategy.control["weight"].tolist() == [[pytest.approx(0.8 / 4)]]


@pytest.mark.slow
def test_scaffold_learns_and_its_variates_follow(tmp_path: Path) -> None:
    """In round 1 all variates are zero, and the correction is none."""
    words = ["--config-dir", str(EXAMPLES / "scaffold"), "strategy=scaffold", "clients=same",
             "clients.training.optimizer.momentum=0", "clients.training.epochs=8",
             "clients.num_clients=5"]  # fmt: skip
    runs = both_pools(tmp_path, [*words, "rounds=3"], "scaffold.Scaffold")
    assert runs["inline"]["student_accuracy"] > 0.5
