"""What a function of a user's gives in a round, and may not, is told as the user's, in one line."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from conf.error_lines import given_by_user, tell_raised
from tests.commands import run_py

CODE = '''import logging
import numpy as np

def sure(*, student):
    return student.softmax(-1).amax(-1)

def turns(teachers):
    """Fits while it is tried, on few inputs."""
    scores = teachers.mask.float()
    return scores * float("nan") if scores.shape[1] > 100 else scores

def breaks(teachers):
    return teachers.mask.float() / (teachers.mask.shape[1] <= 100 or 1 / 0)

def margin(network, inputs, labels):
    return {"margin": 1.0}

def divides(view):
    return {"x": 1 / 0}

def cut(labels, num_clients, rng):
    logging.getLogger("flwr").warning("of Flower's")
    return np.array_split(np.arange(len(labels)), num_clients)
'''
FEW = ["strategy=distillation", "clients.num_clients=2", "clients.training.epochs=1",
       "clients=same", "strategy.distil.epochs=1", "partition=iid", "sim=inline"]  # fmt: skip


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with rules."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "own.py").write_text(CODE)
    return folder


def node(name: str) -> str:
    return f"{{_target_: own.{name}, _partial_: true}}"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (f"+strategy.selection={node('sure')}",
         "round 1: strategy.selection: gave float32 [460], expected positions [M] among 460 "
         "candidates, each once, or a mask [460]"),
        (f"strategy.scorer={node('turns')}",
         "round 1: strategy.scorer=own.turns: the strategy's rule failed where clients run: "
         "ValueError: scores must be finite and >= 0, found nan"),
        (f"strategy.scorer={node('turns')} strategy/combiner=spectral_filter",
         "round 1: scorer own.turns: scores must be finite and >= 0, found nan"),
    ],
    ids=["selection", "scorer", "scorer_here"],
)  # fmt: skip
def test_what_is_given_in_a_round_is_told_without_a_traceback(
    words: str, line: str, mine: Path
) -> None:
    """It was said to be a defect, not of the config."""
    done = run_py("--config-dir", str(mine), *FEW, *re.split(" (?=str)", words), cwd=mine)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"error: {line}"
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr


def test_a_rule_that_raises_in_a_worker_is_told_with_the_users_lines(mine: Path) -> None:
    words = f"strategy.scorer={node('breaks')}"
    done = run_py("--config-dir", str(mine), *FEW, words, cwd=mine)
    *before, last = done.stderr.splitlines()
    story = "error: round 1: strategy.scorer=own.breaks: the strategy's rule failed where clients "
    assert last == f"{story}run: ZeroDivisionError: division by zero ({mine}/own.py, line 13)"
    assert [line.split(",")[0] for line in before if line.startswith("  File ")] == [
        f'  File "{mine}/own.py"'
    ]


def test_a_probe_that_takes_no_view_trains_nobody(mine: Path) -> None:
    done = run_py("--config-dir", str(mine), *FEW, f"+probes.mine={node('margin')}", cwd=mine)
    [line] = done.stderr.splitlines()
    assert line.startswith("error: probes.mine takes network, inputs, labels (missing a required")
    assert "round 1" not in done.stdout


def test_a_probe_that_fails_in_a_round_is_named_once(mine: Path) -> None:
    done = run_py("--config-dir", str(mine), *FEW, f"+probes.mine={node('divides')}", cwd=mine)
    line = "error: round 1: probes.mine=own.divides: ZeroDivisionError: division by zero ("
    assert done.stderr.splitlines()[-1].startswith(line)


@pytest.mark.parametrize(
    ("target", "said", "theirs"),
    [
        ("own.f", "strategy.scorer: gave None", True),
        ("own.f", "strategy.scorer changed its 'x' as it was called", True),
        ("own.f", "scorer own.f: scores must be finite", True),
        ("own.f", "strategy.scorers: gave None", False),
        ("own.f", "strategy.scorer.share=2: expected in (0, 1]", False),
        ("own.f", "scorer own.fn: scores must be finite", False),
        ("strategies.aggregation.scorers.uniform", "strategy.scorer: gave None", False),
    ],
)
def test_only_what_names_a_users_own_is_the_users(
    target: str, said: str, theirs: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    config = OmegaConf.create({"strategy": {"scorer": {"_target_": target}}})
    assert given_by_user(ValueError(said), config) == (said if theirs else "")
    assert given_by_user(RuntimeError(said), config) == ""
    tell_raised(ValueError(said), config)
    assert capsys.readouterr().err.endswith("a defect, not of your config\n") is not theirs


def test_what_flower_warns_of_is_told_once(mine: Path) -> None:
    """Hydra's handler, of the root logger, said it again."""
    words = ["partition._target_=own.cut", "~partition.classes"]
    few = [word for word in FEW if word != "partition=iid"]
    done = run_py("--config-dir", str(mine), *few, *words, cwd=mine)
    assert (done.stdout + done.stderr).count("of Flower's") == 1
