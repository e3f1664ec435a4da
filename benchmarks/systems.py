"""How a system of a benchmark is started: in processes of its own, watched from outside."""

import os
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.memory import MARK, PeakMemory, wait_until_gone

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class System:
    """How a system is started.

    Attributes:
        command: Module and arguments.
        python: Interpreter.
        env: Environment variables beside the common ones.
    """

    command: list[str]
    python: Path = Path(sys.executable)
    env: dict[str, str] = field(default_factory=dict)


def environment(name: str) -> Path:
    """Return the interpreter of a rival's own environment, `.venv-NAME`."""
    return ROOT / f".venv-{name}" / "bin" / "python"


def run_process(
    system: System, words: list[str], *, sample_every_s: float | None, timeout_s: int
) -> int:
    """Run a system once, and wait until all of its processes are gone.

    Args:
        system: How it is started.
        words: What its module is told beside.
        sample_every_s: Sample its memory so often; None = never.
        timeout_s: When to give up.

    Returns:
        The peak of its memory in bytes, 0 if that was not sampled.

    Raises:
        RuntimeError: It failed; with the end of what it said.
    """
    mark = uuid.uuid4().hex
    command = [str(system.python), "-m", *system.command, *words]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **system.env, MARK: mark}

    def call() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout_s
        )

    peak_bytes = 0
    if sample_every_s is None:
        done = call()
    else:
        with PeakMemory(mark, sample_every_s) as memory:
            done = call()
        peak_bytes = memory.peak_bytes
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} failed:\n{done.stdout[-1000:]}{done.stderr[-3000:]}"
        )
    wait_until_gone(mark)
    return peak_bytes


def available(names: list[str], systems: dict[str, System]) -> list[str]:
    """Leave out, and say so, what is not installed."""
    for name in names:
        if name not in systems:
            raise SystemExit(f"--systems {name}: expected one of {', '.join(systems)}")
        if not (python := systems[name].python).exists():
            target = python.parent.parent.name
            print(f"{name} is left out: not installed, see `make {target}`", file=sys.stderr)
    return [name for name in names if systems[name].python.exists()]
