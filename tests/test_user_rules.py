"""Rules and networks that a user brings along, from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.commands import run_py
from tests.places import ROOT
from tests.quick_runs import QUICK, federated, result_of

RULES = '''
import torch

def runner_up(teachers):
    """Trust by one minus the second largest probability."""
    return 1 - teachers.logits.softmax(-1).topk(2, dim=-1).values[..., 1]

def squared(student_logits, targets, temperature):
    return ((student_logits / temperature).softmax(-1) - targets).square().sum(-1)

class Stubborn(torch.nn.Module):
    """A network of the user's own, which learns from so many examples at once at most."""
    def __init__(self, num_classes, most=2):
        super().__init__()
        self.head, self.most = torch.nn.Linear(64, num_classes), most
    def forward(self, images):
        if self.training and len(images) > self.most:
            raise ArithmeticError("I never learn")
        return self.head(images.flatten(1))
'''


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    for kind, name in (("scorer", "runner_up"), ("loss", "squared")):
        (folder / "strategy" / kind).mkdir(parents=True)
        text = f"_target_: my_rules.{name}\n_partial_: true\n"
        (folder / "strategy" / kind / f"{name}.yaml").write_text(text)
    (folder / "my_rules.py").write_text(RULES)
    return folder


STUBBORN = "{share: 0.3, model: {_target_: my_rules.Stubborn, _partial_: true}}"
FAILING = [*QUICK, f"+clients.architectures.stubborn={STUBBORN}"]


@pytest.mark.parametrize("pool", ["inline", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_users_rules_run_with_no_edit_to_ours_and_a_client_that_raises_is_named(
    mine: Path, tmp_path: Path, pool: str
) -> None:
    """The others go on."""
    args = ["--config-dir", str(mine), *FAILING]
    rules = "strategy/scorer=runner_up", "strategy/loss=squared"
    result = result_of(tmp_path / "a", *args, *rules, f"sim={pool}")
    plain = federated(tmp_path / "b", *args)
    assert result["student_sha256"] != plain["student_sha256"]
    assert "my_rules.runner_up" in (tmp_path / "a" / "config.yaml").read_text()
    lines = (tmp_path / "a" / "failures.jsonl").read_text().splitlines()
    failures = [json.loads(line) for line in lines]
    assert result["failures"] == len(failures) > 0
    first = failures[0]
    assert (first["architecture"], first["round"], first["phase"]) == (
        "stubborn", 1, "train.predictions",
    )  # fmt: skip
    assert first["failure"] == "ArithmeticError: I never learn"
    assert "my_rules.py" in first["traceback"]


@pytest.mark.slow  # pytest in pytest
def test_a_users_rules_pass_or_fail_our_contract(mine: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "tests/test_plugins.py",
            "tests/test_plugins_losses.py",
            "-k",
            "runner_up or squared",
        ],
        cwd=ROOT,
        env={**os.environ, "STILLHOUSE_RULES": str(mine)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "15 passed" in done.stdout


def test_an_architecture_that_never_learns_is_refused_before_anybody_trains(
    mine: Path, tmp_path: Path
) -> None:
    stubborn = "{share: 0.3, model: {_target_: my_rules.Stubborn, _partial_: true, most: 0}}"
    done = run_py(
        "--config-dir", str(mine), "sim=inline", *QUICK, f"hydra.run.dir={tmp_path / 'run'}",
        f"+clients.architectures.stubborn={stubborn}",
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "error: clients.training: architecture 'stubborn' cannot learn from two examples: "
        "ArithmeticError: I never learn\n"
    )


def test_below_the_quorum_the_run_stops_and_says_who_failed_first(
    mine: Path, tmp_path: Path
) -> None:
    done = run_py(
        "--config-dir", str(mine), "sim=inline", *FAILING, f"hydra.run.dir={tmp_path / 'run'}",
        "quorum=1",
    )  # fmt: skip
    assert done.returncode == 3
    assert "only 4 of 5 replies are usable, quorum is 1.0. First failure: client " in done.stderr
    assert (
        "(stubborn), round 1, phase train.predictions: ArithmeticError: I never learn"
        in done.stderr
    )
    assert "Traceback" in done.stderr
    assert not (tmp_path / "run" / "result.json").exists()
    assert len((tmp_path / "run" / "failures.jsonl").read_text().splitlines()) == 1
    assert pq.read_table(tmp_path / "run" / "clients.parquet").num_rows == 5
