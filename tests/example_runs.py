"""Examples, imported and run as a user does, from another folder."""

import importlib
import sys
from pathlib import Path
from typing import Any

from tests.federations import SEED
from tests.places import ROOT
from tests.quick_runs import federated

EXAMPLES = ROOT / "examples"


def imported(name: str) -> Any:
    """Import an example as `--config-dir` lets it be."""
    sys.path.insert(0, str(EXAMPLES / name))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLES / name))


def both_pools(
    folder: Path, words: list[str], target: str = "", **others: str
) -> dict[str, dict[str, Any]]:
    """Run on both pools, and inline with other words; see that bits are as they should be.

    Args:
        folder: For a run folder of each name.
        words: `--config-dir`, the folder, and more; with three rounds where there is a target.
        target: What a resumed run is told to trust: then the one over Ray stops after two rounds,
            and goes on from its checkpoint.
        others: Of each other run, what it adds to the words.

    Returns:
        What `result.json` says, of `inline`, `ray` and the others.
    """
    words = [*words, f"seed={SEED}"]
    runs = {"inline": federated(folder / "inline", *words)}
    if target:
        runs["ray"] = _gone_on(folder / "ray", words, target)
    else:
        runs["ray"] = federated(folder / "ray", *words, sim="ray")
    for name, word in others.items():
        runs[name] = federated(folder / name, *words, *word.split())
    for what in ("student_sha256", "metrics_sha256", "clients_sha256"):
        assert runs["inline"][what] == runs["ray"][what]
    assert all(runs[name]["metrics_sha256"] != runs["inline"]["metrics_sha256"] for name in others)
    return runs


def _gone_on(folder: Path, words: list[str], target: str) -> dict[str, Any]:
    """Run two rounds with checkpoints and go on to three; over Ray; return what is said then."""
    federated(folder, *words, "rounds=2", "checkpoint_every=1", sim="ray")
    resumed = ["rounds=3", f"resume_targets=[{target}]"]
    return federated(folder, *words[:2], resumed=resumed, sim="ray")
