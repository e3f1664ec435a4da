"""Methods of examples/ are chosen by name, and a user's own of the same name come first."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import OmegaConf

from conf.command_line_errors import explain
from conf.errors import ConfigError
from conf.resume import fingerprint
from conf.schema import EXAMPLES, HERE, check_targets
from tests.commands import run_py
from tests.composing import composed
from tests.saved_configs import resumed


def test_an_example_is_chosen_and_comes_back_from_a_run_folder(tmp_path: Path) -> None:
    config = composed("strategy=scaffold", "clients=same")
    assert config.strategy._target_ == "scaffold.Scaffold"
    check_targets(config)
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
    assert fingerprint(resumed(tmp_path)) == fingerprint(config)


def test_a_misspelt_example_and_its_key_have_hints() -> None:
    assert "did you mean 'scaffold'?" in str(explain(["strategy=scafold"], []))
    assert "'strategy.rate'" in str(explain(["strategy=scaffold", "strategy.rte=1"], []))
    assert explain(["strategy=scaffold", "strategy.rate=1"], []) is None


def test_no_example_hides_an_option_of_ours_or_anothers() -> None:
    options = [p.relative_to(root) for root in (HERE, *EXAMPLES) for p in root.rglob("*.yaml")]
    assert len(options) == len({*options})


def test_a_users_copy_comes_before_the_example(tmp_path: Path) -> None:
    """A copy that was edited would else be read, and not be run."""
    (tmp_path / "strategy").mkdir()
    mine = "_target_: scaffold.Mine\n_partial_: true\nslope: 2.0\n"
    (tmp_path / "strategy/scaffold.yaml").write_text(mine)
    (tmp_path / "scaffold.py").write_text("def Mine(*, slope):\n    raise ValueError('mine')\n")
    done = run_py("--config-dir", str(tmp_path), "strategy=scaffold", "clients=same")
    assert done.returncode == 1
    line = f"strategy=scaffold.Mine: ValueError: mine ({tmp_path}/scaffold.py, line 2)"
    assert done.stderr == f"error: {line}\n"


def test_an_installed_package_of_an_examples_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = ModuleType("moon")
    theirs.__file__ = "/somewhere/site-packages/moon/__init__.py"
    monkeypatch.setitem(sys.modules, "moon", theirs)
    with pytest.raises(ConfigError, match="'moon' is an installed package here"):
        check_targets(composed("strategy=moon", "clients=same"))
