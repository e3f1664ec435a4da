"""What `gpu_check` found, as JSON and as Markdown for docs/gpu.md."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent

PEAKS = {  # dense, operations per second, by the makers' data sheets: bf16, tf32, float32
    "H200": (989e12, 495e12, 67e12),
    "H100 PCIe": (756e12, 378e12, 51e12),
    "H100": (989e12, 495e12, 67e12),
    "A100": (312e12, 156e12, 19.5e12),
}


@dataclass
class Part:
    """A table, and what is wrong with it.

    Attributes:
        title: above the table.
        note: what the columns are.
        rows: cells by column.
        faults: what makes the check fail, each a sentence.
        seconds: it took.
    """

    title: str
    note: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Goal:
    """What was asked for; `found` is None where it was not measured."""

    what: str
    wanted: float
    found: float | None

    @property
    def verdict(self) -> str:
        """Met, not met, or not measured."""
        if self.found is None:
            return "not measured"
        return "met" if self.found >= self.wanted else "not met"


def peaks(device: str) -> tuple[float, float, float] | None:
    """Return the device's peak in bf16, tf32 and float32; None if it is not known."""
    if device == "cpu":
        return None
    name = torch.cuda.get_device_name()
    return next((found for known, found in PEAKS.items() if known in name), None)


def about(device: str) -> dict[str, str]:
    """Say on what, with what, when and of which commit."""
    git = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    cuda = device != "cpu"
    return {
        "device": torch.cuda.get_device_name() if cuda else f"cpu, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda) if cuda else "none",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "commit": done.stdout.strip() or os.environ.get("GPU_CHECK_COMMIT", "unknown"),
    }


def cell(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if value and abs(value) < 0.01:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as Markdown; columns are those of the first row, then any others."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(cell(row.get(column)) for column in columns)} |" for row in rows]
    return "\n".join(lines)


def markdown(said: dict[str, str], parts: Sequence[Part], goals: Sequence[Goal]) -> str:
    """Return the whole page."""
    where = f"{said['device']}, torch {said['torch']}, CUDA {said['cuda']}"
    head = f"{where}, Python {said['python']}, {said['date']}, commit {said['commit'][:12]}"
    faults = [f"{part.title}: {fault}" for part in parts for fault in part.faults]
    verdict = "Passed." if not faults else "**Failed:**\n\n" + "\n".join(f"* {f}" for f in faults)
    asked = [
        {"goal": g.what, "wanted": g.wanted, "found": g.found, "verdict": g.verdict} for g in goals
    ]
    blocks = [head, verdict, table(asked)]
    for part in parts:
        blocks.append(f"**{part.title}** ({part.seconds:.0f} s). {part.note}".rstrip())
        blocks += [table(part.rows)] if part.rows else []
    return "\n\n".join(blocks) + "\n"


def write(out: Path, said: dict[str, str], parts: Sequence[Part], goals: Sequence[Goal]) -> bool:
    """Write gpu.json and gpu.md; return whether all is well.

    Args:
        out: The folder.
        said: `about`.
        parts: Found so far.
        goals: What was asked for.

    Returns:
        Whether no part has a fault.
    """
    out.mkdir(parents=True, exist_ok=True)
    passed = not any(part.faults for part in parts)
    found = {
        "about": said,
        "passed": passed,
        "goals": [asdict(goal) | {"verdict": goal.verdict} for goal in goals],
        "parts": [asdict(part) for part in parts],
    }
    (out / "gpu.json").write_text(json.dumps(found, indent=2))
    (out / "gpu.md").write_text(markdown(said, parts, goals))
    return passed
