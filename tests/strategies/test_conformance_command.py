"""The conformance command: what is said of numbers, and of plug-ins that cannot be called."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.plugin_yaml import plugin_in
from strategies.conformance.command import keywords_of, main

MINE = """
import torch
from clients.training.loop import train


def usual(network, dataset, indices, targets, loss, rng, **numbers):
    return train(network, dataset, indices, targets, loss, rng, **numbers)


def switched(teachers, *, flag, size=1):
    assert isinstance(flag, bool)
    return torch.full(teachers.mask.shape, 1.0 if size is None else float(size))


def never(teachers):
    raise OSError("over\\n  two lines")
"""


@pytest.fixture
def told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[str]]:
    """Return what makes a verdict: the lines that are not ok, without the first."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_odd.py").write_text(MINE)

    def lines(*words: str) -> list[str]:
        status = main([*words, "--config-dir", str(tmp_path)], read=plugin_in)
        out = capsys.readouterr()
        found = [line.strip() for line in (out.out + out.err).splitlines()]
        assert status == any("FAIL" in line or "error:" in line for line in found)
        return [line for line in found if not line.startswith(("ok", words[0]))]

    yield lines  # type: ignore[misc]
    sys.modules.pop("my_odd", None)


@pytest.mark.parametrize(
    ("text", "value"),
    [("false", False), ("true", True), ("null", None), ("1e-3", 0.001), ("3", 3), ("-0.5", -0.5),
     ("[1, a, null]", [1, "a", None]), ("{x: 1}", {"x": 1}), ("abc", "abc"), ("'1'", "1"),
     ("2024-01-01", "2024-01-01"), ("a.b", "a.b"), ("", None)],
)  # fmt: skip
def test_values_are_read_as_a_config_reads_them(text: str, value: object) -> None:
    from omegaconf import OmegaConf

    found = keywords_of([f"name={text}"])
    assert found == {"name": value}
    assert type(found["name"]) is type(value)
    assert OmegaConf.to_container(OmegaConf.from_dotlist([f"name={text}"])) == found


@pytest.mark.parametrize("word", ["name", "a.b=1", "=1", "name=[1", "name={"])
def test_other_words_are_refused_by_name(word: str) -> None:
    with pytest.raises(ValueError, match="expected NAME=VALUE"):
        keywords_of([word])


def test_a_flag_is_no_text(told: Callable[..., list[str]]) -> None:
    assert told("scorer", "my_odd.switched", "flag=false", "size=null") == [
        "8 of 8 as it ought to be"
    ]


def test_an_argument_that_it_does_not_have_is_told_once(
    told: Callable[..., list[str]], tmp_path: Path
) -> None:
    fault = "FAIL  Takes what is bound to it: switched has no argument 'sise', only teachers, flag"
    for words in (["my_odd.switched", "flag=true", "sise=2"], ["odd.yaml"]):
        (tmp_path / "odd.yaml").write_text(
            "_target_: my_odd.switched\n_partial_: true\nflag: true\nsise: 2\n"
        )
        assert told("scorer", *words) == [f"{fault}, size", "0 of 1 as it ought to be"]


def test_what_a_file_would_bind_is_told_once_with_a_hint(told: Callable[..., list[str]]) -> None:
    first, last = told("trainer", "my_odd.usual", "epochs=1")
    assert "train() missing 2 required" in first
    assert first.endswith("(bound in its YAML? then conformance KIND FOLDER/FILE.yaml)")
    assert last == "1 of 9 as it ought to be, 7 not tried for the same error"


def test_an_error_takes_one_line(told: Callable[..., list[str]]) -> None:
    lines = told("scorer", "my_odd.never")
    assert sum("OSError: over two lines" in line for line in lines) == 1
    assert sum("FAIL" in line for line in lines) == 1
