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
SHORT = ["clients.num_clients=5", "clients.training.epochs=2", "rounds=2"]
NOTED = {"Trainer": "smoothed_by", "Codec": "mean_change"}
"""What the example of a section notes of each client."""


def written(section: str, folder: Path) -> tuple[list[str], list[str]]:
    """Write a section's files into a folder as it says.

    Returns:
        The words of its command, and those without its own option.
    """
    (code,) = re.findall(r"```python\n(.*?)```", section, re.S)
    (config,) = re.findall(r"```yaml\n(.*?)```", section, re.S)
    (name,) = re.findall(r"^# my_rules/(.*):$", config, re.M)
    (words,) = re.findall(r"^#   python run.py --config-dir my_rules (.*)$", config, re.M)
    module = re.findall(r"_target_: (my_\w+)\.", config)[0]
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text(config)
    (folder / f"{module}.py").write_text(code)
    group, option = str(Path(name).parent), Path(name).stem
    own = f"{group}={option}"
    others = [word for word in words.split() if word != own]
    return ["--config-dir", str(folder), *words.split()], others


def test_how_many_points_the_page_has() -> None:
    assert len(SECTIONS) >= 4


@pytest.mark.parametrize("name", SECTIONS)
def test_an_example_of_the_page_runs_and_changes_a_number(name: str, tmp_path: Path) -> None:
    words, others = written(SECTIONS[name], tmp_path / "my_rules")
    found = result_of(tmp_path / "run", *words, *SHORT, "sim=inline")
    usual = federated(tmp_path / "usual", *others, *SHORT)
    assert (found["rounds"], found["failures"]) == (2, 0)
    assert hashes(found) != hashes(usual)
    if name in NOTED:
        table = pq.read_table(tmp_path / "run" / "clients.parquet").to_pandas()
        assert table[NOTED[name]].notna().all()
        last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
        assert NOTED[name] in last["clients"]
