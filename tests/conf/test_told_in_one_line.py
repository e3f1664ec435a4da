"""Whatever a user gets wrong is told in one line, ours, the last on stderr, with an exit code."""

from pathlib import Path

import pytest

from tests.commands import run_py
from tests.places import ROOT

CODE = '''import torch
from clients.partition import Partition

def raises(teachers):
    raise RuntimeError("my own fault")

def value(teachers):
    raise ValueError("my value")

def nothing(teachers):
    return None

def wide(teachers):
    return torch.ones(2, 3)

def nans(teachers):
    return torch.full(teachers.mask.shape, float("nan"))

def asks(teachers, weather):
    return teachers.mask.float()

class Once:
    """Works while it is tried, and in the first round."""

    def __init__(self):
        self.calls = 0

    def __call__(self, teachers):
        self.calls += 1
        if teachers.mask.shape[1] > 100:
            raise ZeroDivisionError("late")
        return teachers.mask.float()

def two(logits, weights):
    return logits.mean(0)

def no_targets(logits, weights, temperature):
    return None

def off_simplex(logits, weights, temperature):
    return torch.ones_like(logits[0])

def no_partition(labels, num_clients, rng):
    return None

def three(labels, num_clients, rng):
    return [[0], [1], [2]]

def beyond(labels, num_clients, rng):
    return [[0], [1], [2], [3], [10**6]]

def no_cut(labels, num_clients, rng):
    raise RuntimeError("no way")

def no_net(image_shape, num_classes):
    return None

def no_condition(*what, **named):
    raise RuntimeError("no labels")

def no_training(*what, **named):
    raise RuntimeError("no training")
'''
MODULES = {"mine": CODE, "syntax": "\ndef f(:\n", "imports": "import nothing_of_the_kind\n",
           "at_import": "raise RuntimeError('at import')\n",
           "benchmarks": "f = print\n"}  # fmt: skip
FEW = ["strategy=distillation", "clients.num_clients=5", "clients.training.epochs=1",
       "strategy.distil.epochs=1", "sim=inline"]  # fmt: skip


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder of config and rules."""
    folder = tmp_path_factory.mktemp("mine")
    for name, code in MODULES.items():
        (folder / f"{name}.py").write_text(code)
    files = {
        "strategy/scorer/broken.yaml": "_target_: mine.raises\n _partial_: [true\n",
        "strategy/misspelt.yaml": "defaults:\n  - dlad\n  - override scorer: margn\n",
        "experiment/twice.yaml": "# @package _global_\ndefaults:\n  - /proxy: mnist\n",
        "experiment/words.yaml": "# @package _global_\nrounds: many\n",
        "experiment/unknown.yaml": "# @package _global_\nrouns: 3\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def told(mine: Path, *words: str) -> tuple[int, str, list[str]]:
    """Return the exit code, the last line on stderr, and those before it."""
    done = run_py(*words, cwd=mine)
    *before, last = done.stderr.splitlines()
    return done.returncode, last.replace(str(mine), "MINE"), before


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("rouns=3", "unknown key 'rouns'; did you mean 'rounds'?"),
        ("clients.trainin.epochs=3", "unknown key 'clients.trainin.epochs'; did you mean 'clients"),
        ("strateggy=dlad", "unknown key 'strateggy'; did you mean 'strategy'?"),
        ("rounds=abc", "rounds='abc': expected an integer >= 1"),
        ("rounds=", "rounds='': expected an integer >= 1"),
        ("tracking.watch=3", "tracking.watch: expected a list, such as [1,2]"),
        ("clients.together=3x", "clients.together='3x': expected true or false"),
        ("rounds=${nothing}", "rounds: Interpolation key 'nothing' not found"),
        ("strategy=dlda", "'strategy=dlda': no such option; did you mean 'dlad'? (all: adapt_"),
        ("strategy.scorer=uniform", "strategy.scorer=uniform: expected a node; an option is ch"),
        ("rounds", "'rounds': expected KEY=VALUE"),
        ("rounds 3 -m", "'rounds': expected KEY=VALUE"),
        ("rounds=[3", "'rounds=[3': cannot be read: "),
        ("conformanc", f"'conformanc': a function is checked by python {ROOT}/run.py conformance"),
        ("--config-dir /nowhere", "--config-dir: Additional config directory '/nowhere' not found"),
        ("--config-dir MINE strategy/scorer=broken",
         "MINE/strategy/scorer/broken.yaml, line 2: no YAML: mapping values are not allowed here"),
        ("--config-dir MINE strategy=misspelt",
         "In 'strategy/distillation': Could not find 'strategy/scorer/margn'; did you mean 'm"),
        ("--config-dir MINE experiment=twice", "proxy is chosen twice: in a defaults list write"),
        ("--config-dir MINE experiment=words", "experiment/words.yaml: rounds: Value 'many' of ty"),
        ("--config-dir MINE experiment=unknown", "experiment/unknown.yaml: unknown key 'rouns'; "),
        ("hydra.run.dir=/proc/x", "hydra.run.dir=/proc/x: cannot be made, or written to: "),
        ("resume=MINE", "resume=MINE: no run folder, it has no config.yaml"),
        ("student_device=mps", "student_device=mps: expected cpu or cuda"),
        ("seed=0,1", "seed=0,1: several values: expected -m before the words for a sweep, or [a"),
        ("hydra.run.dir=", "hydra.run.dir=: expected a folder"),
        ("sim.workers=500", "sim.workers=500: this machine has "),
        ("sim.device=cuda", "sim.device=cuda: torch sees no GPU here"),
        ("clients.num_clients=4", "partition: num_clients=4 with classes=2 own at most 8 of "),
        ("partition.classes=11", "partition.classes=11, expected 1..10, the classes there are"),
        ("report /nowhere", "/nowhere: no such folder"),
        ("conformance scorer nowhere.f", "nowhere.f: No module named 'nowhere'"),
    ],
)  # fmt: skip
def test_a_command_that_cannot_be_run(words: str, line: str, mine: Path) -> None:
    code, last, before = told(mine, *words.replace("MINE", str(mine)).split())
    assert (code, before) == (1, [])
    assert last.startswith(f"error: {line}")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("seed=1 -m rounds=2", "unrecognized arguments: rounds=2; flags, such as -m or --config-"),
        ("--rounds 3", "unrecognized arguments: --rounds; options are words KEY=VALUE without da"),
        ("conformance scorr mine.raises", "argument kind: invalid choice: 'scorr' (choose from"),
        ("report", "the following arguments are required: FOLDER; run.py report --help says mo"),
    ],
)
def test_a_flag_that_is_wrong(words: str, line: str, mine: Path) -> None:
    code, last, before = told(mine, *words.split())
    assert (code, before) == (2, [])
    assert last.startswith(f"error: {line}")


SCORER, COMBINER = "strategy.scorer", "strategy.combiner"


@pytest.mark.parametrize(
    ("key", "target", "line"),
    [
        (SCORER, "syntax.f", f"{SCORER}=syntax.f: cannot import 'syntax': SyntaxError: invalid "
         "syntax (MINE/syntax.py, line 2)"),
        (SCORER, "imports.f", f"{SCORER}=imports.f: cannot import 'imports': No module named "
         "'nothing_of_the_kind' (MINE/imports.py, line 1)"),
        (SCORER, "at_import.f", f"{SCORER}=at_import.f: cannot import 'at_import': RuntimeError: "
         "at import (MINE/at_import.py, line 1)"),
        (SCORER, "nowhere.f", f"{SCORER}=nowhere.f: cannot import 'nowhere': No module named "
         "'nowhere'; the folder that holds nowhere.py goes after --config-dir, before all words"),
        (SCORER, "benchmarks.f", f"{SCORER}._target_=benchmarks.f: 'benchmarks' has no 'f'; "
         "MINE/benchmarks.py is hidden by "),
        (SCORER, "mine.rises", f"{SCORER}._target_=mine.rises: 'mine' has no 'rises'; did you me"),
        (SCORER, "mine.value", f"{SCORER}=mine.value: ValueError: my value (MINE/mine.py, line 8)"),
        (SCORER, "mine.nothing", "scorer mine.nothing: returned NoneType, expected a tensor of"),
        (SCORER, "mine.wide", "scorer mine.wide: scores (2, 3): expected ("),
        (SCORER, "mine.nans", "scorer mine.nans: scores must be finite and >= 0, found nan"),
        (SCORER, "mine.asks", "strategy.scorer.weather is not set, and strategy.scorer needs it"),
        (COMBINER, "mine.two", f"{COMBINER}=mine.two: two() takes 2 positional arguments but 3 "),
        (COMBINER, "mine.no_targets", "combiner mine.no_targets: gave NoneType, expected a tens"),
        (COMBINER, "mine.off_simplex", "combiner mine.off_simplex: gave targets of which a row "),
        ("partition", "mine.no_partition", "partition: the function returned NoneType, expected 5"),
        ("partition", "mine.three", "partition: the function returned examples of 3 clients, exp"),
        ("partition", "mine.beyond", "partition: the function returned indices 0 to 1000000, exp"),
        ("student", "mine.no_net", "architecture 'student' cannot answer an input of shape (1, 8, "
         "8): ValueError: gave NoneType, expected a torch.nn.Module"),
    ],
)  # fmt: skip
def test_a_function_that_cannot_be_used(key: str, target: str, line: str, mine: Path) -> None:
    code, last, before = told(mine, *named(mine, key, target))
    assert (code, before) == (1, [])
    assert last.startswith(f"error: {line}")


def named(mine: Path, key: str, target: str) -> list[str]:
    """Write a user's option that names a function, and choose it."""
    group, option = key.replace(".", "/"), target.replace(".", "_")
    (mine / group).mkdir(parents=True, exist_ok=True)
    (mine / group / f"{option}.yaml").write_text(f"_target_: {target}\n_partial_: true\n")
    return ["--config-dir", str(mine), *FEW, f"{group}={option}"]


@pytest.mark.parametrize(
    ("key", "target", "line"),
    [
        (SCORER, "mine.raises", "RuntimeError: my own fault (MINE/mine.py, line 5)"),
        ("partition", "mine.no_cut", "RuntimeError: no way (MINE/mine.py, line 53)"),
        ("clients.condition", "mine.no_condition", "RuntimeError: no labels (MINE/mine.py, line"),
    ],
)
def test_a_function_that_raises_shows_the_users_lines_alone(
    key: str, target: str, line: str, mine: Path
) -> None:
    code, last, before = told(mine, *named(mine, key, target))
    assert code == 1
    assert last.startswith(f"error: {key}={target}: {line}")
    assert before[0] == "Traceback (most recent call last):"
    files = [line for line in before if line.startswith("  File ")]
    assert len(files) == 1
    assert str(mine / "mine.py") in files[0]


def test_an_error_in_a_round_names_the_round(mine: Path) -> None:
    words = named(mine, SCORER, "mine.Once")
    (mine / "strategy/scorer/mine_Once.yaml").write_text("_target_: mine.Once\n")
    code, last, _ = told(mine, *words)
    assert code == 1
    assert last.startswith("error: round 1: strategy.scorer=mine.Once: ZeroDivisionError: late (MI")


@pytest.mark.parametrize("pool", ["inline", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_client_that_raises_is_told_with_the_users_lines(pool: str, mine: Path) -> None:
    words = [*FEW, f"sim={pool}", "clients.training._target_=mine.no_training"]
    code, last, before = told(mine, "--config-dir", str(mine), *words)
    assert code == 3
    assert "client 0 (lenet5), round 1, phase train.predictions: RuntimeError: no trai" in last
    files = [line for line in before if line.startswith("  File ")]
    assert files
    assert all(str(mine) in line for line in files)


@pytest.mark.slow  # a fresh interpreter
def test_the_whole_traceback_comes_if_it_is_asked_for(mine: Path) -> None:
    words = named(mine, SCORER, "mine.raises")
    done = run_py(*words, cwd=mine, HYDRA_FULL_ERROR="1")
    assert "run.py" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: strategy.scorer=mine.raises: Runtime")
