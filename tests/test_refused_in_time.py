"""What does not go together is refused before anybody trains; what trainers return is seen."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import stillhouse
from clients.data import dense_labelling
from clients.data.dataset import Dataset
from clients.messages.answers import Answers
from conf.errors import Stopped
from sim.analysis.probes.personal import own_accuracy
from strategies.aggregation.rule_arguments import parted
from strategies.aggregation.scorers import validation_accuracy
from strategies.teaching.proxy_split import ProxySplit
from strategies.teaching.selection import random, require_selection, uncertain
from tests.commands import run_py
from tests.federations import SEED
from tests.quick_runs import federated

QUICK = ["strategy=distillation", "clients.num_clients=5", "clients.training.epochs=1",
         "strategy.distil.epochs=1"]  # fmt: skip
FOREIGN = ("data.proxy_source={_target_: clients.data.blobs, num_classes: 10,"
           " image_shape: [1, 8, 8]}")  # fmt: skip
MEASURED = ["strategy/scorer=validation_accuracy", "strategy.proxy_split.calibration_share=0.2"]


def test_labels_of_another_data_set_measure_nobody(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="nobody knows whether labels of blobs mean what those of di"):
        federated(tmp_path / "refused", *QUICK, *MEASURED, FOREIGN)
    federated(tmp_path / "declared", *QUICK, *MEASURED, FOREIGN, "tracking.proxy_labels=true")


# --- several rows of an input ---

PIXELS = dense_labelling((1, 2, 2), 3)
IMAGES = Dataset("pixels", np.zeros((5, 1, 2, 2), np.float32),
                 np.array([[[0, 1], [2, -1]]] * 5), PIXELS, 1.0, (0.0,), (1.0,))  # fmt: skip


def test_each_labelled_row_counts_in_the_validation_of_a_teacher() -> None:
    """Two teachers, three inputs of four pixels; the last two inputs are the calibration."""
    said = torch.tensor([[0, 1, 2, 0] * 3, [0, 0, 0, 0] * 3])
    mask = torch.ones(2, 12, dtype=torch.bool)
    all_of_it = Answers((0, 1), torch.eye(3)[said], mask, None, torch.ones(2), sites=4)
    teachers, calibration = parted(all_of_it, IMAGES, np.array([3, 4]))
    assert calibration is not None
    assert (teachers.logits.shape, calibration.labels.shape) == ((2, 4, 3), (8,))
    scores = validation_accuracy(teachers, calibration=calibration)
    np.testing.assert_allclose(scores, [[1.0] * 4, [1 / 3] * 4])  # of three labelled pixels


def test_a_selection_by_logits_is_of_classes_of_inputs() -> None:
    split = ProxySplit(proxy=IMAGES, seed=0, negative_share=0.0)
    with pytest.raises(ValueError, match="strategy.selection: .* has 4 rows: .*selection=random"):
        require_selection(uncertain, split)
    require_selection(random, split)


def test_nor_is_it_of_numbers(tmp_path: Path) -> None:
    words = [
        "data=diabetes",
        "clients=mixed_tabular",
        "student=mlp",
        "strategy/selection=uncertain",
        "strategy/combiner=mean_of_outputs",
        "strategy/loss=mse",
    ]
    with pytest.raises(Stopped, match="strategy.selection: .* has numbers"):
        federated(tmp_path / "run", *QUICK, *words)


# --- trainers ---


@pytest.mark.parametrize(("said", "found"), [("None", "NoneType None"), ("0.5", "float 0.5")])
def test_a_trainer_says_its_losses(said: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(f"def quick(*what, **numbers):\n    return {said}\n")
    words = [*QUICK, f"seed={SEED}", "clients.training._target_=mine.quick", "sim=inline"]
    done = run_py("--config-dir", str(tmp_path), *words, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode != 0
    told = json.loads((tmp_path / "run" / "failures.jsonl").read_text().splitlines()[0])
    assert f"clients.training returned {found}, expected a list" in json.dumps(told)


def test_a_trainer_without_anchors_minimises_no_objective(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def plain(a, b, c, d, e, f, epochs, batch_size, optimizer,\n"
                                      "          max_grad_norm, autocast, steps, drop_last,\n"
                                      "          scheduler, scheduler_by, stop_below):\n"
                                      "    return [1.0]\n")  # fmt: skip
    words = ["clients/objective=proximal", "clients.training._target_=mine.plain"]
    words = ["--config-dir", str(tmp_path), *QUICK, *words]
    with pytest.raises(Stopped, match="plain takes no objectives, only losses: expected an argum"):
        federated(tmp_path / "run", *words)


RULES = """
import torch

def nobody(teachers):
    return torch.zeros(teachers.mask.shape)

def raising(teachers):
    raise RuntimeError("mine")
"""


@pytest.fixture
def rules(tmp_path: Path) -> str:
    folder = tmp_path / "rules"
    (folder / "strategy/scorer").mkdir(parents=True)
    (folder / "refused_rules.py").write_text(RULES)
    for name, bound in (
        ("nobody", "_partial_: true\n"),
        ("unbound", ""),
        ("raising", "_partial_: true\n"),
    ):
        target = f"_target_: refused_rules.{name.replace('unbound', 'nobody')}\n"
        (folder / f"strategy/scorer/{name}.yaml").write_text(target + bound)
    return str(folder)


def test_a_round_of_which_nothing_is_learned_is_told(
    tmp_path: Path, rules: str, capsys: pytest.CaptureFixture[str]
) -> None:
    federated(tmp_path / "run", "--config-dir", rules, *QUICK, "strategy/scorer=nobody")
    assert "nothing was distilled: of 460 examples every score is 0" in capsys.readouterr().out


def test_a_rule_that_is_called_where_it_ought_to_be_bound_is_told(
    tmp_path: Path, rules: str
) -> None:
    told = "=refused_rules.nobody: nobody.. missing 1 required .* is `_partial_: true` missing"
    with pytest.raises(Stopped, match=told):
        federated(tmp_path / "run", "--config-dir", rules, *QUICK, "strategy/scorer=unbound")


def test_a_rule_that_raises_leaves_no_empty_folder(
    tmp_path: Path, rules: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(rules)
    with pytest.raises(RuntimeError, match="mine"):
        stillhouse.run(*QUICK, "strategy/scorer=raising", f"hydra.run.dir={tmp_path}/a/run",
                       config_dir=rules, quiet=True)  # fmt: skip
    assert not (tmp_path / "a").exists()


# --- personalised accuracy ---


def test_a_client_whose_classes_nobody_shows_counts_in_no_mean() -> None:
    inputs, labels = torch.eye(3)[[0, 0, 1]], torch.tensor([0, 1, 1])
    shares = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    found: dict[str, Any] = own_accuracy(nn.Identity(), inputs, labels, class_shares=shares)
    assert found == {"own_accuracy": 0.75, "own_accuracy_worst": 0.5, "own_accuracy_std": 0.25}
    assert own_accuracy(nn.Identity(), inputs, labels, class_shares=shares[2]) == {}
