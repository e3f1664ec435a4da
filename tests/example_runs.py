"""Examples, imported and run as a user does, from another folder."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from tests.commands import run_py
from tests.federations import SEED
from tests.places import ROOT
from tests.quick_runs import federated, result_of

EXAMPLES = ROOT / "examples"


def imported(name: str) -> Any:
    """Import an example as `--config-dir` lets it be."""
    sys.path.insert(0, str(EXAMPLES / name))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLES / name))


def gone_on(folder: Path, words: list[str], target: str) -> Any:
    """Run two rounds with checkpoints and go on to three, by `SEED`; return what is said then.

    Args:
        folder: Of the run.
        words: `--config-dir`, the folder, and more.
        target: Of the example's strategy, which a resumed run is told to trust.

    Returns:
        Its `result.json`.
    """
    federated(folder, *words, f"seed={SEED}", "rounds=2", "checkpoint_every=1")
    again = run_py(*words[:2], f"resume={folder}", "rounds=3", f"resume_targets=[{target}]")
    assert again.returncode == 0, again.stderr
    return json.loads((folder / "result.json").read_text())


def both_pools(folder: Path, words: list[str], **others: str) -> dict[str, dict[str, Any]]:
    """Run on both pools, and inline with other words; see that bits are as they should be."""
    words = [*words, f"seed={SEED}"]
    runs = {
        "inline": result_of(folder / "inline", *words, "sim=inline"),
        "ray": federated(folder / "ray", *words, sim="ray"),
    }
    for name, word in others.items():
        runs[name] = federated(folder / name, *words, *word.split())
    for what in ("student_sha256", "metrics_sha256", "clients_sha256"):
        assert runs["inline"][what] == runs["ray"][what]
    assert all(runs[name]["metrics_sha256"] != runs["inline"]["metrics_sha256"] for name in others)
    return runs
