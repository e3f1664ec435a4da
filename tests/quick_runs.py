"""Short runs from the command line, and the hashes that they end with."""

import json
from pathlib import Path

from tests.commands import run_py

QUICK = ["clients.num_clients=5", "clients.training.epochs=2", "strategy.distil.epochs=3"]


def result_of(folder: Path, *args: str, **env: str) -> dict:
    done = run_py(*args, f"hydra.run.dir={folder}", **env)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads((folder / "result.json").read_text())


def hashes(result: dict) -> tuple[str, ...]:
    return tuple(result[f"{what}_sha256"] for what in ("student", "metrics", "clients"))
