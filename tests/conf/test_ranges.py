"""Ranges are read from where functions declare them, before anything is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from conf.declared_arguments import arguments_of
from conf.errors import ConfigError
from conf.ranges import check_ranges, expected_of, out_of_range
from tests.composing import composed
from tests.places import ROOT


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("Annotated[int, '>= 1']", [1, 2, 10**12, 3.0], [0, -1, 1.5, "1", True, float("inf")]),
        ("Annotated[float, '> 0']", [1e-9, 1, 5.5, float("inf")], [0, 0.0, -1, float("nan")]),
        ("Annotated[float, '>= 0, finite']", [0, 1e12], [float("inf"), float("nan")]),
        ('Annotated[int, ">= 5, Ray\'s least"]', [5], [4]),
        ("Annotated[int, 'pixels']", [-1, 0], []),  # somebody else's word
        ("Annotated[float, 'in (0, 1]']", [1, 0.1], [0, 1.0001, -1]),
        ("Annotated[float, 'in [0, 1)']", [0, 0.999], [1, -0.1]),
        ("Annotated[float, 'in (0, 1)']", [0.5], [0, 1]),
        ("Annotated[int, '>= 0, 0 for never'] | None", [0, 1, None], [-1]),
        ("Annotated[int, '>= 1'] | str", [1, "all"], [0]),
        ("float", [-1, "x"], []),
    ],
)
def test_what_is_in_a_range(text: str, inside: list[object], outside: list[object]) -> None:
    assert not [value for value in inside if out_of_range(value, text)]
    assert all(out_of_range(value, text) for value in outside)


def test_what_was_expected_is_the_declaration() -> None:
    assert out_of_range(-1, "Annotated[int, '>= 1'] | None") == "an integer >= 1, or null"
    assert out_of_range(2, "Annotated[float, 'in (0, 1]']") == "a number in (0, 1]"
    assert expected_of("checkpoint_every") == "an integer >= 0, 0 for never"
    assert expected_of("student_threads") == "an integer >= 1, or null for sim.threads"
    assert expected_of("resume") is None


def test_arguments_are_found_where_they_are_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of functions, of classes and what they come from, by other names, forwarded, and nowhere."""
    (tmp_path / "declaring.py").write_text(
        "from dataclasses import dataclass\n"
        "from elsewhere import far as near\n"
        "def plain(x, *, rate: Annotated[float, '> 0'] = 1.0): ...\n"
        "def passing(*what, depth: int, **numbers): return plain(*what, **numbers)\n"
        "@dataclass\nclass Base:\n    size: Annotated[int, '>= 1'] = 1\n"
        "class Derived(Base):\n    def __init__(self, share: Annotated[float, 'in [0, 1]']): ...\n"
        "made = object()\n"
    )
    (tmp_path / "elsewhere.py").write_text("def far(few: Annotated[int, '>= 2']): ...\n")
    (tmp_path / "broken.py").write_text("def f(:\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert arguments_of("declaring.plain") == {"rate": "Annotated[float, '> 0']"}
    assert arguments_of("declaring.passing").keys() == {"rate", "depth"}
    assert arguments_of("declaring.Derived").keys() == {"size", "share"}
    assert arguments_of("declaring.near") == {"few": "Annotated[int, '>= 2']"}
    for target in ("declaring.made", "declaring.none", "nowhere.f", "broken.f", "plain"):
        assert arguments_of(target) == {}


def test_a_users_own_range_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_declared.py").write_text("def sure(t, *, most: Annotated[float, '> 0']): ...\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    node = "+probes.mine={_target_: my_declared.sure, _partial_: true, most: 0}"
    with pytest.raises(ConfigError, match="probes.mine.most=0: expected a number > 0"):
        check_ranges(composed(node))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("strategy.ensemble.temperature=0", "temperature=0: expected a number > 0"),
        ("strategy.fraction=2", r"strategy.fraction=2: expected a number in \(0, 1\]"),
        ("strategy=cpfl strategy.second.fraction=2", "strategy.second.fraction=2: expected a num"),
        (
            "partition=dirichlet partition.dirichlet_concentration=0",
            "_concentration=0: expec",
        ),
        ("clients.architectures.mlp.share=0", "clients.architectures.mlp.share=0: expected a num"),
        ("clients/training=kept_sgd clients.training.epochs=-1", "clients.training.epochs=-1: exp"),
        ("strategy=fedadam strategy.eta=0", "strategy.eta=0: expected a number > 0"),
        ("student.channels=[16,0]", r"student.channels=\[16, 0\]: expected an integer >= 1"),
    ],
)
def test_numbers_of_parts_and_of_others(words: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        check_ranges(composed(*words.split()))


def test_ranges_are_checked_before_torch_is_imported() -> None:
    code = (
        "import os, sys\n"
        "from hydra import compose, initialize_config_dir\n"
        "from conf.ranges import check_ranges\n"
        "from conf.schema import register\n"
        "register()\n"
        "with initialize_config_dir(os.path.abspath('conf'), version_base='1.3'):\n"
        "    check_ranges(compose('config'))\n"
        "assert not {'torch', 'ray', 'flwr', 'clients', 'strategies', 'sim'} & {*sys.modules}\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
