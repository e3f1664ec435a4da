"""docs/data.md: what its Python writes is what its commands read."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from clients.data import described
from stillhouse.wiring import load_splits
from tests.composing import composed
from tests.places import ROOT
from tests.quick_runs import modules_of

PAGE = (ROOT / "docs" / "data.md").read_text()
READ = {
    "Tables": [
        "pets.csv: 192 private, 48 proxy and 60 test examples; inputs [2], outputs [3] (classif",
        "pets.csv: 192 private, 48 proxy and 60 test examples; inputs [1], outputs [3] (classif",
        "pets.csv: 192 private, 48 proxy and 60 test examples; inputs [1], outputs [1] (regress",
    ],
    "Folders of images": [
        "pets: 38 private, 10 proxy and 12 test examples; inputs [1, 16, 20], outputs [3] (clas",
        "pets: 38 private, 10 proxy and 12 test examples; inputs [1, 32, 32], outputs [3] (clas",
    ],
    "Arrays": ["arrays.npz: 64 private, 16 proxy and 20 test examples; inputs [3, 8, 8], outpu"],
    "Hugging Face": ["saved_pets: 38 private, 10 proxy and 12 test examples; inputs [1, 8, 8], "],
    "Whose an example is": ["wards.csv: 192 private, 48 proxy and 60 test examples; inputs"] * 2,
    "A reader of your own": ["pets: 240 private, 160 proxy and 100 test examples; inputs [8], "],
}


def parts_of(section: str) -> tuple[str, list[list[str]]]:
    """Return a section's Python, and the words of its commands."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    return code, [shlex.split(found) for found in re.findall(r"^python run\.py (.*)$", text, re.M)]


def test_all_sections_are_here() -> None:
    assert [*READ] == re.findall(r"^## (.*)$", PAGE, re.M)


def test_what_the_page_writes_is_read_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets").disable_progress_bars()
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for section, said in READ.items():
        code, commands = parts_of(section)
        exec(compile(code, f"data.md, {section}", "exec"), names)
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "pets.py").write_text(code)
        assert len(commands) == len(said)
        for words, expected in zip(commands, said, strict=True):
            with modules_of(str(tmp_path / "mine")):
                config = composed(*words[2 if words[0] == "--config-dir" else 0 :])
                assert described(load_splits(config)).startswith(expected)
