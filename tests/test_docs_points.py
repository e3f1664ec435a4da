"""docs/points.md: every example on it is run as it stands, from another folder."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.places import ROOT
from tests.quick_runs import federated, hashes, result_of

PAGE = (ROOT / "docs/points.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.S | re.M))
SHORT = ["clients.num_clients=5", "strategy.distil.epochs=1", "rounds=2"]
NOTED = {"Trainer": "smoothed_by"}
"""What the example of a section notes of each client."""


def written(section: str, folder: Path) -> list[str]:
    """Write a section's files into a folder as it says; return the words of its command."""
    (code,) = re.findall(r"```python\n(.*?)```", section, re.S)
    (config,) = re.findall(r"```yaml\n(.*?)```", section, re.S)
    (name,) = re.findall(r"^# my_rules/(.*):$", config, re.M)
    (words,) = re.findall(r"^#   python run.py --config-dir my_rules (.*)$", config, re.M)
    module = re.findall(r"_target_: (my_\w+)\.", config)[0]
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text(config)
    (folder / f"{module}.py").write_text(code)
    return ["--config-dir", str(folder), *words.split()]


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What comes of a run without any of them."""
    return federated(tmp_path_factory.mktemp("usual") / "run", *SHORT)


def test_how_many_points_the_page_has() -> None:
    assert len(SECTIONS) >= 1


@pytest.mark.parametrize("name", SECTIONS)
def test_an_example_of_the_page_runs_and_changes_a_number(
    name: str, usual: dict, tmp_path: Path
) -> None:
    words = written(SECTIONS[name], tmp_path / "my_rules")
    found = result_of(tmp_path / "run", *words, *SHORT, "sim=inline")
    assert (found["rounds"], found["failures"]) == (2, 0)
    assert hashes(found) != hashes(usual)
    if name in NOTED:
        table = pq.read_table(tmp_path / "run" / "clients.parquet").to_pandas()
        assert table[NOTED[name]].notna().all()
        last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
        assert NOTED[name] in last["clients"]
