"""docs/points.md: every example on it is run as it stands, from another folder."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from conf.plugin_yaml import plugin_in
from stillhouse.engine_points import engine_points
from strategies.conformance.command import main, table
from strategies.conformance.points import POINTS
from tests.places import ROOT
from tests.quick_runs import federated, hashes, modules_of

PAGE = (ROOT / "docs/points.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.S | re.M))
SHORT = ["clients.num_clients=5", "clients.training.epochs=2", "rounds=2", "data.limit=300"]
EPOCHS = {"strategy=averaging": [], "strategy=dml": ["strategy.teaching.epochs=1"],
          "strategy=dlad": ["strategy.distil.epochs=2"]}  # fmt: skip
"""What a student, if there is one, is taught for."""
NOTED = {"Trainer": "smoothed_by", "Codec": "mean_change", "Asking probe": "attacked_accuracy"}
"""What the example of a section notes of each client."""
KINDS = {
    "A loop of one's own": "trainer",
    "Scorer and combiner": "scorer", "Builder": "model", "Rule of a group": "rule",
    "Asking probe": "probe", "Proxy condition": "proxy_condition",
}  # fmt: skip
"""Of the points of sections that have another name."""


def written(section: str, folder: Path) -> tuple[list[str], list[str]]:
    """Write a section's files into a folder as it says.

    Returns:
        The words of its command, and those without its own options.
    """
    (code,) = re.findall(r"```python\n(.*?)```", section, re.S)
    options = set()
    for config in re.findall(r"```yaml\n(.*?)```", section, re.S):
        (name,) = re.findall(r"^# my_rules/(.*):$", config, re.M)
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(config)
        group, option = Path(name).parent, Path(name).stem
        options |= {f"{group}={option}", f"{group}=[{option}]"}
    (module,) = {*re.findall(r"_target_: (my_\w+)\.", section)}
    (folder / f"{module}.py").write_text(code)
    (words,) = re.findall(r"^#   python run.py --config-dir my_rules (.*)$", section, re.M)
    others = [word for word in words.split() if word not in options]
    return ["--config-dir", str(folder), *words.split()], others


def test_how_many_points_the_page_has() -> None:
    assert len(SECTIONS) >= 15


def test_the_table_of_the_page_is_that_of_the_command() -> None:
    """Where it is not, paste what `python run.py conformance` prints."""
    assert table((*POINTS, *engine_points())) in PAGE


_usual: dict[tuple[str, ...], dict] = {}
"""What runs without an example ended with, which many sections share."""


@pytest.mark.parametrize("name", SECTIONS)
def test_an_example_of_the_page_runs_and_changes_a_number(name: str, tmp_path: Path) -> None:
    words, others = written(SECTIONS[name], tmp_path / "my_rules")
    (learning,) = {*words} & {*EPOCHS} or {"strategy=dlad"}
    short = [*SHORT, *EPOCHS[learning]]
    found = federated(tmp_path / "run", *words, *short)
    if (words_of_usual := (*others, *short)) not in _usual:
        _usual[words_of_usual] = federated(tmp_path / "usual", *words_of_usual)
    usual = _usual[words_of_usual]
    assert (found["rounds"], found["failures"]) == (2, 0)
    assert hashes(found) != hashes(usual)
    if name in NOTED:
        table = pq.read_table(tmp_path / "run" / "clients.parquet").to_pandas()
        assert table[NOTED[name]].notna().all()
        last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
        assert NOTED[name] in last["clients"]


@pytest.mark.parametrize("name", SECTIONS)
def test_an_example_of_the_page_passes_the_kit(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(SECTIONS[name], tmp_path)
    file = re.findall(r"^# my_rules/(.*):$", SECTIONS[name], re.M)[0]
    words = [KINDS.get(name, name.lower()), file, "--config-dir", str(tmp_path)]
    with modules_of(str(tmp_path)):
        status = main(words, engine_points, plugin_in)
    assert status == 0, capsys.readouterr()
