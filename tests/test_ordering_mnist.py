"""The ordering of docs/results.md, through the command line, on MNIST (about four minutes)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT

DATA = Path(os.environ.get("STILLHOUSE_DATA") or ROOT.parent / "shared" / "data")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not (DATA / "MNIST").is_dir(), reason="no MNIST under $STILLHOUSE_DATA")
def test_students_are_ordered_as_the_rules_that_taught_them(tmp_path: Path) -> None:
    rules = ["own_odds", "own_probability", "max_prob", "uniform"]
    command = [
        sys.executable, "run.py", "-m", "experiment=two_classes", "data=mnist", "sim=inline",
        f"strategy/scorer={','.join(rules)}", f"data.root={DATA}", f"hydra.sweep.dir={tmp_path}",
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    found = [json.loads((tmp_path / str(i) / "result.json").read_text()) for i in range(4)]
    odds, probability, max_prob, uniform = (result["student_accuracy"] for result in found)
    assert odds > probability > max_prob > uniform
    assert probability > max_prob + 0.3
    assert odds > found[0]["clients_accuracy"]["max"] + 0.5
