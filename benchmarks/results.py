"""A table over run folders: mean and spread over seeds of each method.

    python -m benchmarks.results runs/2026-01-01/12-00-00-000000-sweep

Runs that differ only in their seed are one row; rows are named by the overrides that differ.

`heading` is what every table of measurements begins with.
"""

import argparse
import json
import platform
import subprocess
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf


def heading() -> str:
    """Say on what, when and with which commit something was measured; + = and changes to it."""
    root = Path(__file__).parent.parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
        return done.stdout.strip()

    commit = git("rev-parse", "--short=7", "HEAD") or "none"
    changed = "+" if git("status", "--porcelain", "--untracked-files=no") else ""
    return (
        f"CPU: {cpu_model()}; capability: {torch.backends.cpu.get_cpu_capability()}; "
        f"date: {datetime.now(UTC).date()}; commit: {commit}{changed}"
    )


def cpu_model() -> str:
    """Return the processor's name, where Linux tells it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def rows(folders: list[Path]) -> dict[str, list[dict]]:
    """Collect the results below the folders, by the overrides other than seed and place."""
    found: dict[str, list[dict]] = defaultdict(list)
    for result in sorted(path for folder in folders for path in folder.rglob("result.json")):
        overrides = OmegaConf.load(result.parent / ".hydra" / "overrides.yaml")
        name = " ".join(o for o in overrides if not o.startswith(("seed=", "sim=", "data.root=")))
        found[name].append(json.loads(result.read_text()))
    return found


def spread(values: list[float | None]) -> str:
    """Mean and standard deviation over seeds, in percent; - where there is nothing to measure."""
    if None in values:
        return "-"
    return f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=len(values) > 1):.1f}"


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    args = parser.parse_args()
    print(f"{heading()}\n")
    print("| method | seeds | student | ensemble | best client | mean client | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name, results in rows(args.folders).items():
        cells = [
            spread([r["student_accuracy"] for r in results]),
            spread([r["ensemble_accuracy"] for r in results]),
            spread([(r["clients_accuracy"] or {}).get("max") for r in results]),
            spread([(r["clients_accuracy"] or {}).get("mean") for r in results]),
            f"{np.mean([r['wall_time_s'] for r in results]):.0f}",
        ]
        print(f"| `{name}` | {len(results)} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
