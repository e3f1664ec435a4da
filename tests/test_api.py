"""Runs that Python begins: the same as the command's, one after the other, in one process."""

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import stillhouse
from run import federate
from stillhouse.api import stop_when
from tests.composing import composed
from tests.places import ROOT
from tests.quick_runs import NO_FIGURES

TINY = ("data=blobs", "clients.num_clients=5", "clients.training.epochs=1", "data.proxy_limit=60",
        "strategy.distil.epochs=1", "rounds=3", NO_FIGURES)  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def test_a_run_has_the_bits_of_the_command_and_its_numbers_as_tables(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[dict[str, Any]] = []
    words = [*TINY, "sim=inline"]
    result = stillhouse.run(words, "hydra.run.dir=out", callbacks=[seen.append], quiet=True)
    assert capsys.readouterr() == ("", "")
    (here / "plain").mkdir()
    plain = federate(composed(*TINY, "sim=inline"), here / "plain")
    assert result.numbers["student_sha256"] == plain["student_sha256"]
    assert result.folder == here / "out"
    assert result.metrics["round"].tolist() == [1, 2, 3]
    assert result.metrics["student/accuracy"].iloc[-1] == plain["student_accuracy"]
    assert [numbers["round"] for numbers in seen] == [1, 2, 3]
    assert [n["student/accuracy"] for n in seen] == result.metrics["student/accuracy"].tolist()
    assert sorted(set(result.clients["client"])) == [0, 1, 2, 3, 4]
    assert isinstance(result.clients, pd.DataFrame)
    assert not (here / "out" / "lock").exists()


TWICE = """
import json, sys, stillhouse
words = json.loads(sys.argv[1])
best = stillhouse.stop_when("student/accuracy", above=-1.0)
over_ray = ["sim.workers=1", "strategy/scorer=uniform"]
one = stillhouse.run(*words, *over_ray, callbacks=[dict.clear, best, lambda numbers: 1], quiet=True)
two = stillhouse.run(*words, "strategy/scorer=margin", "rounds=1", "sim=inline", quiet=True)
print(json.dumps([str(one.folder), one.numbers, two.numbers]))
"""


@pytest.mark.slow  # half a minute: two Rays; early stop over Ray is in test_early_stop.py
def test_a_second_run_with_other_words_over_ray_and_a_callback_that_ends_it(here: Path) -> None:
    """And what a callback of the user's does with the numbers that it is given changes nothing."""
    command = [sys.executable, "-c", TWICE, json.dumps(TINY)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folder, one, two = json.loads(done.stdout)
    assert one["stopped_early"]["after_round"] == 1
    assert one["stopped_early"]["reason"].startswith("student/accuracy: ")
    assert Path(folder).is_relative_to(here / "runs")
    (here / "plain").mkdir()
    words = (*TINY, "sim=inline", "rounds=1", "strategy/scorer=margin")
    assert two["student_sha256"] == federate(composed(*words), here / "plain")["student_sha256"]
    assert one["student_sha256"] != two["student_sha256"]


def test_hydra_is_left_as_it_was(here: Path) -> None:
    theirs, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().hydra = mine = object()  # type: ignore[assignment]
    try:
        with pytest.raises(stillhouse.RunError):
            stillhouse.run("rouns=2", quiet=True)
        assert GlobalHydra.instance().hydra is mine
        assert HydraConfig.instance().cfg is config
    finally:
        GlobalHydra.instance().hydra = theirs


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["rouns=3"], "unknown key 'rouns'; did you mean 'rounds'?"),
        (["seed=0,1"], "seed=0,1: several runs: expected one value"),
        (["rounds=0"], "rounds=0: expected an integer >= 1"),
        (["strategy=fedavg", "data=blobs", "sim=inline"], "set clients=same"),
        (["resume=nowhere"], "resume=nowhere: no run folder, it has no config.yaml"),
        (["stop.above=1"], "stop.above: expected stop.metric too, such as student/accuracy"),
        (["stop.patience=0"], "stop.patience=0: expected an integer >= 1, or null"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_what_is_wrong_is_an_exception_with_the_commands_line(
    words: list[str], told: str, here: Path
) -> None:
    with pytest.raises(stillhouse.RunError) as caught:
        stillhouse.run(*words, quiet=True)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [*here.iterdir()]


def test_a_module_beside_yaml_of_ones_own_and_a_run_in_a_thread(here: Path) -> None:
    (here / "mine" / "strategy" / "scorer").mkdir(parents=True)
    (here / "mine" / "scorer_of_api.py").write_text(
        "from strategies.aggregation import scorers\nflat = scorers.uniform\n"
    )
    node = "_target_: scorer_of_api.flat\n_partial_: true\n"
    (here / "mine" / "strategy" / "scorer" / "flat.yaml").write_text(node)
    results: list[Any] = []
    words = (*TINY, "sim=inline", "rounds=1", "strategy/scorer=flat")
    thread = threading.Thread(
        target=lambda: results.append(stillhouse.run(*words, config_dir="mine", quiet=True))
    )
    thread.start()
    thread.join()
    assert results[0].numbers["student_accuracy"] >= 0


def test_what_a_callback_raises_is_its_own(here: Path) -> None:
    def each(numbers: dict[str, float]) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        stillhouse.run(*TINY, "sim=inline", "hydra.run.dir=out", callbacks=[each], quiet=True)
    assert not (here / "out" / "lock").exists()


def test_a_signal_ends_a_run_after_its_round(here: Path) -> None:
    def each(numbers: dict[str, float]) -> None:
        os.kill(os.getpid(), 15)

    words = (*TINY, "sim=inline", "hydra.run.dir=out")
    with pytest.raises(KeyboardInterrupt, match="resume="):
        stillhouse.run(*words, callbacks=[each], quiet=True)
    result = stillhouse.run(f"resume={here / 'out'}", quiet=True)
    assert len(result.metrics) == 3


def test_a_stop_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="expected above=, below= or patience="):
        stop_when("student/accuracy")
    with pytest.raises(ValueError, match="expected max or min"):
        stop_when("student/accuracy", above=1, mode="up")
    each = stop_when("a", patience=1)
    assert [each({"a": 1.0}), each({}), each({"a": 2.0}), each({"a": 2.0})] == [False] * 3 + [True]


def test_a_name_that_is_not_offered_is_told() -> None:
    with pytest.raises(AttributeError, match="stillhouse has no 'runs'; it has Result, RunError, "):
        stillhouse.runs  # noqa: B018


def test_numbers_go_to_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    fake = ModuleType("wandb")
    log = lambda numbers, step: told.append((numbers, step))  # noqa: E731

    @contextmanager
    def init(**options: Any) -> Any:
        told.append(options)
        yield SimpleNamespace(log=log)
        told.append("finished")

    fake.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with stillhouse.to_wandb(project="p") as each:
        each({"round": 2, "student/accuracy": 0.5})
    numbers = {"round": 2, "student/accuracy": 0.5}
    assert told == [{"project": "p"}, (numbers, 2), "finished"]


def test_numbers_go_to_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    @contextmanager
    def start_run(**options: Any) -> Any:
        told.append(options)
        yield
        told.append("finished")

    fake = ModuleType("mlflow")
    fake.start_run = start_run  # type: ignore[attr-defined]
    fake.log_metrics = lambda numbers, step: told.append((numbers, step))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    with stillhouse.to_mlflow(run_name="r") as each:
        each({"round": 1, "student/loss": 2.0})
    assert told == [{"run_name": "r"}, ({"round": 1, "student/loss": 2.0}, 1), "finished"]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_an_adapter_without_its_package_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"pip install {name}"):
        getattr(stillhouse, f"to_{name}")().__enter__()


def test_what_is_no_word_or_no_callback_is_told(here: Path) -> None:
    with pytest.raises(stillhouse.RunError, match="expected words, each a text, such as 'seed=1'"):
        stillhouse.run(["seed=1", 5])  # type: ignore[list-item]
    with pytest.raises(stillhouse.RunError, match="expected functions of a round's numbers"):
        stillhouse.run("seed=1", callbacks=[3])  # type: ignore[list-item]
    assert not [*here.iterdir()]
    assert stillhouse.__version__[0].isdigit()
