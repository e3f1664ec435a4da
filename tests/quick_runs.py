"""Short runs from the command line, and the hashes that they end with."""

import json
from pathlib import Path

from tests.commands import run_py

QUICK = ["clients.num_clients=5", "clients.training.epochs=2", "strategy.distil.epochs=3"]


NO_FIGURES = "tracking.figures_every=0"
"""They change no number, and take a second of a run's three."""


def result_of(folder: Path, *args: str, **env: str) -> dict:
    """Run without figures, unless the words want some; return what the run says of itself."""
    drawn = any(word.startswith("tracking.figures_every=") for word in args)
    done = run_py(*args, *([] if drawn else [NO_FIGURES]), f"hydra.run.dir={folder}", **env)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads((folder / "result.json").read_text())


def hashes(result: dict) -> tuple[str, ...]:
    return tuple(result[f"{what}_sha256"] for what in ("student", "metrics", "clients"))
