"""docs/configuration.md, and what `stillhouse list GROUP/OPTION` says."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from conf.declared_arguments import arguments_of
from conf.errors import ConfigError
from conf.reference import described, keys_of, page
from conf.schema import Config
from tests.places import CONF, ROOT


def test_the_page_is_what_is_in_the_config_now() -> None:
    """Where it is not: `python -m conf.reference > docs/configuration.md`."""
    assert (ROOT / "docs/configuration.md").read_text() == page()


def test_a_key_has_a_default_a_range_and_a_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "# Mine.\n_target_: clients.training.loop.train\n_partial_: true\nepochs: 3\n"
        "batch_size: 8  # a few,\n               # no more\nautocast: null\nof: {a: 1, b: [2, x]}\n"
    )
    keys = {key.name: key for key in keys_of(file, "clients.training")}
    assert [*keys] == [
        *("clients.training.epochs", "clients.training.batch_size", "clients.training.autocast"),
        *("clients.training.of.a", "clients.training.of.b"),
    ]
    epochs = keys["clients.training.epochs"]
    assert (epochs.default, epochs.expected) == ("3", "an integer >= 0")
    assert epochs.said == "Passes over the examples, >= 0."  # of its docstring
    assert keys["clients.training.batch_size"].said == "a few, no more"
    assert keys["clients.training.of.b"].default == "[2, x]"


def test_defaults_of_a_run_stand_in_the_schema_as_in_its_file() -> None:
    """The file says what they are, the schema of which type: neither goes its own way."""
    file = OmegaConf.load(CONF / "config.yaml")
    schema = OmegaConf.to_container(OmegaConf.structured(Config))
    written = {name: OmegaConf.to_container(file)[name] for name in file if name in schema}
    groups = ("proxy", "proxy_condition", "experiment", "debug")
    assert len(written) > 12
    for name, value in written.items():
        assert name not in groups
        assert schema[name] == value, name


def test_a_package_says_where_a_file_goes(tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text("# @package data.proxy_source\nroot: 1\n")
    assert [key.name for key in keys_of(file, "proxy")] == ["data.proxy_source.root"]
    file.write_text("# @package _global_\nrounds: 2\n")
    (key,) = keys_of(file, "experiment")
    assert (key.name, key.expected) == ("rounds", "an integer >= 1")


def test_modules_that_import_a_name_from_each_other_declare_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one_way.py").write_text("from other_way import f\n")
    (tmp_path / "other_way.py").write_text("from one_way import f\n")
    package = tmp_path / "a_package"
    package.mkdir()
    (package / "__init__.py").write_text("from .inner import g\n")
    (package / "inner.py").write_text("def g(*, x: int): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert arguments_of("one_way.f") == {}
    assert arguments_of("a_package.g") == {"x": "int"}


def test_an_option_is_described_or_the_nearest_named() -> None:
    said = described("clients/training=sgd").splitlines()
    assert said[0].startswith("clients/training=sgd: Local training on labels")
    assert any(line.startswith("  clients.training.epochs=20  (an integer >= 0)") for line in said)
    with pytest.raises(ConfigError, match="did you mean 'clients/training/sgd'"):
        described("clients/training/sdg")
