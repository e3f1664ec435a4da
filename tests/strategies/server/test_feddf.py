"""FedDF: averages by architecture, each taught by all; early stopping on labelled examples."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from clients.messages.answers import Answers
from clients.training.early_stopping import best_on_validation
from clients.training.losses import cross_entropy
from strategies.aggregation.rule_arguments import Calibration
from strategies.aggregation.scorers import above_chance
from tests.commands import run_py
from tests.federations import SEED
from tests.quick_runs import federated, hashes, modules_of
from tests.trained_together import NOISE, SGD, built

QUICK = ["strategy=feddf", f"seed={SEED}", "clients.num_clients=4", "clients.training.epochs=1",
         "data=blobs", "partition=iid", "student=mlp", "student.hidden=[4]",
         "clients.architectures.mlp.model.hidden=[4]", "~clients.architectures.lenet5"]  # fmt: skip
TAUGHT = ["strategy.distil.steps=20", "strategy.distil.every=5", "strategy.distil.batch_size=16"]
UNTAUGHT = ["strategy/distil=adam", "strategy.distil.epochs=0"]


def student_in(folder: Path) -> dict[str, Any]:
    return load_file(folder / "student.safetensors")


def models_in(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: load_file(path) for path in sorted((folder / "peers").glob("*"))}


# --- the method ---


@pytest.mark.parametrize("words", [["strategy=feddf", *UNTAUGHT], ["strategy=fedensemble"]])
def test_without_a_lesson_it_is_federated_averaging(words: list[str], tmp_path: Path) -> None:
    same = [f"seed={SEED}", "clients=same", "clients.num_clients=4", "clients.training.epochs=1",
            "data=blobs", "rounds=2"]  # fmt: skip
    federated(tmp_path / "feddf", *words, *same)
    federated(tmp_path / "fedavg", "strategy=averaging", *same)
    one, other = student_in(tmp_path / "feddf"), student_in(tmp_path / "fedavg")
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_allclose(array, other[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("num_clients", "alone"), [(1, True), (4, False)])
def test_fedensemble_measures_the_clients_networks_together(
    num_clients: int, alone: bool, tmp_path: Path
) -> None:
    """Those of one client are that one, and the mean too."""
    words = ["clients=same", f"seed={SEED}", "data=blobs", "partition=iid", "student=mlp"]
    words += [f"clients.num_clients={num_clients}"]
    federated(tmp_path / "run", "strategy=fedensemble", *words)
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    together, mean = line["strategy"]["ensemble_loss"], line["clients"]["loss"]["mean"]
    assert (together == pytest.approx(mean, rel=1e-4)) == alone
    assert (together == pytest.approx(line["student"]["loss"], rel=1e-4)) == alone


def test_every_architecture_is_taught_by_all(tmp_path: Path) -> None:
    found = federated(tmp_path / "taught", *QUICK, *UNTAUGHT[:1], "strategy.distil.epochs=2")
    plain = federated(tmp_path / "plain", *QUICK, *UNTAUGHT)
    assert hashes(found) != hashes(plain)
    line = json.loads((tmp_path / "taught" / "metrics.jsonl").read_text().splitlines()[-1])
    taught, averages = models_in(tmp_path / "taught"), models_in(tmp_path / "plain")
    assert taught.keys() == averages.keys() != {"mlp"}
    for name, parameters in taught.items():
        assert line["strategy"][f"distillation_loss_{name}"] > 0
        assert 0 < line["strategy"][f"accuracy_{name}"] <= 1
        changed = [not np.array_equal(a, averages[name][key]) for key, a in parameters.items()]
        assert all(changed)
    for key, array in student_in(tmp_path / "taught").items():  # the student is an mlp of theirs
        np.testing.assert_array_equal(array, taught["mlp"][key])


def test_a_round_sends_parameters_beside_answers(tmp_path: Path) -> None:
    """Two clients of each architecture get and send theirs; else it is ensemble distillation."""
    alike = "strategy.proxy_split.negative_share=0", "strategy.proxy_split.calibration_share=0.1"
    said = {}
    for name in ("feddf", "distillation"):
        words = [*QUICK[1:], *UNTAUGHT, *alike]
        federated(tmp_path / name, f"strategy={name}", *words)
        line = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1])
        said[name] = line["bytes"]
    models = models_in(tmp_path / "feddf").values()
    parameters = 2 * sum(array.nbytes for own in models for array in own.values())
    for way in ("request", "reply"):
        more = said["feddf"][way] - said["distillation"][way]
        assert parameters < more < parameters + 4 * 1000  # names and shapes


def test_both_pools_and_a_resumed_run_have_the_same_bits(tmp_path: Path) -> None:
    words = [*QUICK, *TAUGHT, "strategy.fraction=0.5"]
    whole = federated(tmp_path / "whole", *words, "rounds=3")
    assert hashes(federated(tmp_path / "ray", *words, "rounds=3", sim="ray")) == hashes(whole)
    federated(tmp_path / "begun", *words, "rounds=2", "checkpoint_every=1")
    resumed = federated(tmp_path / "begun", resumed=["rounds=3"])
    assert hashes(resumed) == hashes(whole)
    assert models_in(tmp_path / "begun").keys() == models_in(tmp_path / "whole").keys()


def test_a_student_that_no_client_has_is_taught_beside_them(tmp_path: Path) -> None:
    lesson = *UNTAUGHT[:1], "strategy.distil.epochs=40", "clients.training.epochs=10"
    federated(tmp_path / "other", *QUICK, *lesson, "student.hidden=[5]")
    line = json.loads((tmp_path / "other" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["strategy"]["distillation_loss"] > 0
    assert line["student"]["accuracy"] > 0.3  # of four classes


# --- early stopping ---


def looked_at(worths: list[float], **numbers: Any) -> tuple[nn.Module, list[bytes], list[float]]:
    """Train by a validation that says these numbers in turn; return what it looked at, too."""
    network, seen = built("logistic_regression"), list[bytes]()
    said = iter(worths)

    def validation(each: nn.Module) -> float:
        seen.append(b"".join(p.detach().numpy().tobytes() for p in each.parameters()))
        return next(said)

    about = {"epochs": 9, "batch_size": 8, "optimizer": SGD, "every": 2, **numbers}
    labels = torch.tensor(NOISE.labels[:40])
    losses = best_on_validation(
        network, NOISE, np.arange(40), labels, cross_entropy, np.random.default_rng(0),
        validation=validation, **about,
    )  # fmt: skip
    return network, seen, losses


def now(network: nn.Module) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in network.parameters())


def test_the_best_is_kept_and_patience_ends() -> None:
    network, seen, losses = looked_at([0.1, 0.5, 0.4, 0.3, 0.0], patience_steps=4)
    assert len(seen) == 5  # at 0, 2, 4, 6 steps, and in the end
    assert now(network) == seen[1]
    assert len(losses) == 2  # of five steps each; the second was broken off
    network, seen, _ = looked_at([0.1, 0.2, 0.3, 0.4], steps=5, patience_steps=4)
    assert len(seen) == 4
    assert now(network) == seen[3]  # the last step is the best


def test_what_was_better_before_the_lesson_stays() -> None:
    network, seen, _ = looked_at([0.9, 0.5, 0.4, 0.3], patience_steps=4)
    assert now(network) == seen[0]


@pytest.mark.parametrize("numbers", [{"every": 0}, {"patience_steps": 0}])
def test_odd_numbers_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected >= 1"):
        looked_at([0.0] * 9, **numbers)


def test_labels_are_wanted() -> None:
    words = ["strategy=distillation", "strategy/distil=best_on_validation", "sim=inline"]
    done = run_py(*words, "rounds=1")
    assert done.returncode == 1
    assert "expected strategy.proxy_split.calibration_share > 0" in done.stderr


# --- the worst are dropped ---


def answers(logits: torch.Tensor) -> Answers:
    clients, examples, _ = logits.shape
    mask = torch.ones(clients, examples, dtype=torch.bool)
    return Answers(tuple(range(clients)), logits, mask, None, torch.ones(clients))


def test_those_no_better_than_chance_are_dropped() -> None:
    logits = torch.eye(4)[torch.tensor([[0, 1, 2, 3], [0, 1, 0, 0], [0, 0, 0, 0]])]
    calibration = Calibration(answers(logits), torch.tensor([0, 1, 2, 3]))
    teachers = answers(torch.zeros(3, 5, 4))
    found = above_chance(teachers, calibration=calibration)
    assert found.tolist() == [[1.0] * 5, [1.0] * 5, [0.0] * 5]  # 1, 1/2, 1/4 of four classes
    found = above_chance(teachers, calibration=calibration, margin=0.3)
    assert found[:, 0].tolist() == [1, 0, 0]
    wrong = Calibration(answers(logits), torch.tensor([1, 0, 3, 2]))
    assert above_chance(teachers, calibration=wrong).unique().tolist() == [1]  # nobody is
    with pytest.raises(ValueError, match=r"strategy.scorer.margin=1: expected in \[0, 1\)"):
        above_chance(teachers, calibration=calibration, margin=1)


COUNTING = """import numpy as np
from clients.training.loop import train

def counting(model, *what, local, **numbers):
    losses, lessons = train(model, *what, **numbers), float(local.state.get("lessons", 0)) + 1
    local.state["lessons"] = np.array(lessons)
    local.note(lessons=lessons)
    return losses
"""


def test_what_a_lesson_keeps_is_each_models_own_and_is_resumed(tmp_path: Path) -> None:
    """It was taken without a word, and nothing was kept or told."""
    (mine := tmp_path / "mine").mkdir()
    (mine / "mine.py").write_text(COUNTING)
    words = ["--config-dir", str(mine), *QUICK, "strategy/distil=adam", "strategy.distil.epochs=1",
             "strategy.distil._target_=mine.counting", "checkpoint_every=1"]  # fmt: skip
    whole = federated(tmp_path / "whole", *words, "rounds=3")
    federated(tmp_path / "run", *words, "rounds=2")
    trust = ["rounds=3", "resume_targets=[mine.counting]"]
    with modules_of(str(mine)):
        assert hashes(federated(tmp_path / "run", resumed=trust)) == hashes(whole)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    told = [json.loads(line)["strategy"] for line in lines]
    architectures = {name for name in told[0] if name.startswith("lessons_")}
    assert len(architectures) == 2
    for name in architectures:
        assert [each[name] for each in told] == [1.0, 2.0, 3.0]
