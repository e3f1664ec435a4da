"""docs/api.md: its Python runs as it stands, in order, and models that go home are the run's."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.places import ROOT


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the page's names are after all of its blocks."""
    text = (ROOT / "docs" / "api.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert len(blocks) == 5
    found: dict[str, Any] = {"here": tmp_path_factory.mktemp("api")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(found["here"])
        for number, block in enumerate(blocks, 1):
            exec(compile(block, f"api.md, block {number}", "exec"), found)
    return found


def test_the_run_of_the_page_is_in_its_folder(names: dict[str, Any]) -> None:
    assert names["result"].folder == names["here"] / "out"
    assert [numbers["round"] for numbers in names["seen"]] == [1, 2, 3]


def test_the_accuracy_comes_home(names: dict[str, Any]) -> None:
    wanted = names["result"].numbers["student_accuracy"]
    assert wanted > 0.2
    assert names["accuracy"] == pytest.approx(wanted, abs=1e-9)
    assert names["plain_accuracy"] == pytest.approx(wanted, abs=0.5 / len(names["test"]))


def test_every_name_that_is_offered_is_on_the_page(names: dict[str, Any]) -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    offered = {*names["stillhouse"]._OFFERED} - {"Result"}
    assert {name for name in offered if name not in text} == set()


def test_the_commands_of_the_page_are_the_commands() -> None:
    from stillhouse.command import COMMANDS

    text = (ROOT / "docs" / "api.md").read_text()
    shown = set(re.findall(r"^stillhouse (\w+)", text, re.M))
    assert shown == {*COMMANDS} - {"report", "conformance", "--version"}
    assert Path(ROOT / "docs" / "report.md").exists()
