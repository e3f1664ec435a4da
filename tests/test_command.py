"""The command `stillhouse`: which word does what, and what is said of a wrong one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra._internal.hydra import Hydra

from conf import composing
from conf.catalogue import about, copied, listed, options
from conf.composing import composed_once
from conf.errors import ConfigError
from stillhouse.command import main
from tests.commands import run_py
from tests.places import CONF, ROOT


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def test_every_option_says_what_it_is() -> None:
    assert [(group, option) for group, option, said in options() if not said] == []
    assert len([*options()]) > 230
    assert {group for group, _, _ in options()} >= {
        str(path.relative_to(CONF))
        for path in CONF.rglob("*")
        if path.is_dir() and path.suffix == ""
    } - {"__pycache__"}


def test_what_is_said_is_the_first_sentence_of_the_comment(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("# @package _global_\n# Of Shen et al. 2020, a\n# thing. More of it.\nkey: 1\n")
    assert about(path) == "Of Shen et al. 2020, a thing"
    path.write_text(f"# {'long ' * 25}; more\n")
    assert about(path) == ("long " * 25)
    path.write_text("key: 1 # not this\n")
    assert about(path) == ""


def test_a_group_is_listed_with_the_word_that_chooses() -> None:
    first, *rest = listed("strategy/scorer").splitlines()
    assert first == "strategy/scorer  (strategy/scorer=OPTION)"
    assert "  uniform                   Equal trust" in rest
    assert "  samme " in listed("strategy/scorer")  # of examples/
    assert listed("proxy").startswith("proxy  (proxy=OPTION)")
    assert listed("strategy/ask").startswith("strategy/ask  (strategy/ask=[OPTION])")
    assert listed().count("(strategy/loss=OPTION)") == 1


def test_a_group_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "strategy/scorers"]) == 1
    told = capsys.readouterr().err
    assert told == "error: 'strategy/scorers': no such group; did you mean 'strategy/scorer'?\n"


def test_a_copied_option_is_used_once_edited(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["copy", "partition/dirichlet"]) == 0
    told = capsys.readouterr().out.strip()
    use = told.partition("stillhouse run ")[2].split()
    path = here / "partition" / "my_dirichlet.yaml"
    node = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(node | {"dirichlet_concentration": -1}))
    assert main(["check", *use]) == 1
    assert "dirichlet_concentration" in capsys.readouterr().err
    path.write_text(yaml.safe_dump(node | {"dirichlet_concentration": 100.0}))
    assert main(["check", *use, "clients.num_clients=7"]) == 0
    assert "\n7 clients (" in capsys.readouterr().out
    assert main(["copy", "partition=dirichlet"]) == 1
    assert "my_dirichlet.yaml: exists already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["partition/dirichle", "partition", "dirichlet", ""])
def test_an_option_that_is_not_there_is_not_copied(name: str, here: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such GROUP/OPTION"):
        copied(name, here)
    assert not [*here.iterdir()]


SCAFFOLD = ["strategy=scaffold", "clients=same", "clients.training.optimizer.momentum=0"]


def test_a_check_tells_who_takes_part_and_leaves_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "strategy=averaging", "clients=same", "student=logistic_regression"]) == 0
    read, who, parameters, seconds, sent = capsys.readouterr().out.splitlines()
    assert read.startswith(
        "digits: 863 private, 575 proxy and 359 test examples; inputs [1, 8, 8],"
    )
    assert who.startswith("10 clients (10 student), ")
    assert parameters == "parameters: student 650, (student) 650"
    assert seconds.startswith("seconds: about ")
    one = 4 * 650 * 10
    assert sent.startswith(f"bytes: about {one:,} up and {one:,} down a round of 10 clients, and ")
    assert seconds.endswith(" round, and 0 for what a student is taught")
    assert main(["check", "rounds=3", "strategy.fraction=0.5", "strategy.feed_back=targets"]) == 0
    *_, seconds, sent = capsys.readouterr().out.splitlines()
    up, ids = 4 * 575 * 10 * 5, 8 * 575 * 5
    assert f"about {up:,} up and {ids + up:,} down a round of 5 clients, and" in sent
    assert f" {3 * up + 3 * ids + 2 * up:,} in all, if they send answers to the proxy set" in sent
    for words in (["strategy=fd"], ["strategy=local_only"], ["strategy=feddf"], SCAFFOLD):
        assert main(["check", *words]) == 0  # it said the bytes of parameters, of all of them
        assert "sends messages of its own; docs/methods.md" in capsys.readouterr().out
    # 50 epochs of 575 examples, 9 batches each: at least the steps' own 0.3 ms
    assert float(seconds.split()[-7]) >= 3 * 50 * 9 * 3e-4
    assert not [*here.iterdir()]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("rouns=3", "error: unknown key 'rouns'; did you mean 'rounds'?\n"),
        ("seed=0,1", "error: seed=0,1: several runs: expected one value, or [a,b] for a list; a "),
        ("-m", "error: '-m': expected GROUP=OPTION or KEY=VALUE, and no flag\n"),
        ("--config-dir=nowhere", "error: --config-dir nowhere: no such folder\n"),
        ("rounds=0", "error: rounds=0: expected an integer >= 1\n"),
        ("strategy=dlda", "error: 'strategy=dlda': no such option; did you mean 'dlad'? (all: "),
        (
            "clients.num_clients=2",
            "error: partition: num_clients=2 with classes=2 own at most 4 of ",
        ),
        ("student._target_=nowhere.net", "error: student=nowhere.net: cannot import 'nowhere'"),
    ],
)
def test_a_check_says_what_a_run_would(
    word: str, told: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", word]) == 1
    assert capsys.readouterr().err.startswith(told)
    assert not [*here.iterdir()]


def test_no_command_at_all(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    assert main([]) == main(["--help"]) == 0
    assert capsys.readouterr().out.count("usage: stillhouse COMMAND") == 2
    assert main(["strategy=dlad"]) == 2
    assert "is it stillhouse run strategy=dlad?" in capsys.readouterr().err


def test_versions_are_told_without_importing_what_has_them() -> None:
    code = (
        "import sys; from stillhouse.command import main; main(['--version']); main(['list'])\n"
        "print('HEAVY', sorted({'torch', 'ray', 'flwr', 'typer'} & set(sys.modules)))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.startswith("stillhouse 0.1.0, flwr 1."), done.stderr
    assert done.stdout.endswith("HEAVY []\n")


def test_run_py_knows_the_commands_and_runs_without_one(tmp_path: Path) -> None:
    assert run_py("list", "topology").stdout.startswith("topology  (topology=OPTION)")
    words = ["sim=inline", "clients.training.epochs=1", "strategy.distil.epochs=1"]
    done = run_py(*words, f"hydra.run.dir={tmp_path / 'a'}")
    also = run_py("run", *words, f"hydra.run.dir={tmp_path / 'b'}")
    assert (done.returncode, also.returncode) == (0, 0), done.stderr + also.stderr
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in "ab")
    assert one["student_sha256"] == two["student_sha256"]


def test_hydra_composes_once_where_nothing_can_say_that_it_is_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Hydra.get_mode
    for words in ([], ["rounds=2", "+probes.mine=null"], ["strategy=dml", "hydra.run.dir=x"]):
        with composed_once(words):
            assert Hydra.get_mode is not ask
        assert Hydra.get_mode is ask
    for word in ("-m", "experiment=compare", "hydra.mode=MULTIRUN", "hydra.searchpath=[file:///x]"):
        with composed_once(["seed=0,1", word]):
            assert Hydra.get_mode is ask
    (tmp_path / "debug").mkdir()
    (tmp_path / "debug" / "seeds.yaml").write_text("hydra:\n  mode: MULTIRUN\n")
    monkeypatch.setattr(composing, "EXAMPLES", [tmp_path])  # as if it were put into ours
    with composed_once(["debug=seeds"]):
        assert Hydra.get_mode is ask


def test_only_what_runs_plug_ins_finds_modules_in_the_working_folder(here: Path) -> None:
    """A report may be about a stranger's folder, and be made in it."""
    before = [*sys.path]
    assert main(["list", "data"]) == 0
    assert main(["report", str(here)]) == 1
    assert sys.path == before


def test_a_check_tries_the_rules(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "rules" / "strategy" / "scorer").mkdir(parents=True)
    (here / "rules" / "my_odd.py").write_text("def odd(teachers):\n    return {}['none']\n")
    file = here / "rules" / "strategy" / "scorer" / "odd.yaml"
    file.write_text("_target_: my_odd.odd\n_partial_: true\n")
    assert main(["check", "--config-dir", "rules", "strategy/scorer=odd"]) == 1
    assert "strategy.scorer=my_odd.odd: KeyError: 'none'" in capsys.readouterr().err
