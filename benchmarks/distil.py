"""Distillation on several systems: seconds, CPU, phases, memory, bytes and accuracy of a round.

    python -m benchmarks.distil --clients 20 --proxy 1000
    python -m benchmarks.distil --protocol digest --systems plain-2,ours-ray-2 --rounds 2
    python -m benchmarks.distil --clients 100 --networks mixed --repetitions 3 --json found.json

Every system does the work of `distil_work.py` in processes of its own, one system after the other.
A round's seconds are the median over all repetitions of all rounds but each one's first; so are its
CPU seconds, which count all of a system's processes. Memory is sampled once a second while a
system runs: on two cores a sample costs a hundredth of that second. The command fails where a
student ends more than 0.03 of accuracy away from the first system's.
"""

import argparse
import json
import statistics
import sys
import tempfile
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.distil_work import PHASES, Work, arguments, command_line, work_of
from benchmarks.results import heading
from benchmarks.systems import System, available, environment, run_process

BAND = 0.03
"""How far a student's last accuracy may be from the first system's."""
SAMPLE_EVERY_S = 1.0
OURS, FLOWER = "benchmarks.distil_ours", "benchmarks.distil_flower"
TWO_THREADS = {"OMP_NUM_THREADS": "2"}
SYSTEMS = {
    "plain-1": System(["benchmarks.distil_plain", "--threads", "1"]),
    "plain-2": System(["benchmarks.distil_plain", "--threads", "2"], env=TWO_THREADS),
    "plain-2-tuned": System(
        ["benchmarks.distil_plain", "--threads", "2", "--tuned"], env=TWO_THREADS
    ),
    "ours-inline": System([OURS, "--workers", "0"]),
    "ours-ray-1": System([OURS, "--workers", "1"]),
    "ours-ray-2": System([OURS, "--workers", "2"]),
    "ours-ray-2-threads": System([OURS, "--workers", "2", "--student-threads", "2"]),
    "plain-2-half": System(
        ["benchmarks.distil_plain", "--threads", "2", "--half"], env=TWO_THREADS
    ),
    "ours-ray-2-half": System([OURS, "--workers", "2", "--student-threads", "2", "--half"]),
    "ours-ray-2-teachers": System([OURS, "--workers", "2", "--student-threads", "2", "--teachers"]),
    "flower": System([FLOWER, "--workers", "2"], env=TWO_THREADS),
    "blazefl-2": System(
        ["benchmarks.blazefl", "--threads", "2"], environment("blazefl"), TWO_THREADS
    ),
}
ONE_WAY_ONLY = {"ours-ray-2-teachers"}
CLIENTS = ("digest", "train", "answer", "clients")
"""Phases of the clients; only systems that run one after the other tell them apart."""


@dataclass(frozen=True)
class Found:
    """What one run of a system came to.

    Attributes:
        seconds: Of each round but the first.
        cpu_s: The same, of the CPUs.
        phases: Of each of these rounds the seconds by phase.
        accuracy: The student's, after every round.
        bytes_per_round: Of arrays, both ways; None = nothing is sent.
        peak_bytes: Of memory.
    """

    seconds: list[float]
    cpu_s: list[float]
    phases: list[dict[str, float]]
    accuracy: list[float]
    bytes_per_round: float | None
    peak_bytes: int


def run_system(system: System, work: Work, folder: Path, timeout_s: int) -> Found:
    """Run a system once.

    Args:
        system: How it is started.
        work: What to do.
        folder: Where it may write what it found.
        timeout_s: When to give up.

    Returns:
        What it found.

    Raises:
        RuntimeError: It failed.
    """
    result = folder / f"{uuid.uuid4().hex}.json"
    words = [*command_line(work), "--result", str(result)]
    peak = run_process(system, words, sample_every_s=SAMPLE_EVERY_S, timeout_s=timeout_s)
    found: dict[str, Any] = json.loads(result.read_text())
    return Found(
        np.diff(found["ticks"]).tolist(),
        np.diff(found["cpu"]).tolist(),
        found["phases"][1:],
        found["accuracy"],
        found["bytes_per_round"],
        peak,
    )


def phases_of(runs: list[Found]) -> dict[str, float]:
    """Take the median seconds of each phase over the rounds of all runs."""
    rounds = [one for run in runs for one in run.phases]
    names = [name for name in PHASES if any(name in one for one in rounds)]
    return {name: statistics.median(one.get(name, 0.0) for one in rounds) for name in names}


def summary(name: str, runs: list[Found]) -> dict[str, Any]:
    """Reduce all repetitions of a system to one row.

    Args:
        name: The system's.
        runs: Its repetitions.

    Returns:
        Plain values.
    """
    medians = [statistics.median(run.seconds) for run in runs]
    return {
        "system": name,
        "seconds": statistics.median(s for run in runs for s in run.seconds),
        "range_s": [min(medians), max(medians)],
        "cpu_s": statistics.median(s for run in runs for s in run.cpu_s),
        "phases": phases_of(runs),
        "peak_bytes": max(run.peak_bytes for run in runs),
        "bytes_per_round": runs[0].bytes_per_round,
        "accuracy": statistics.median(run.accuracy[-1] for run in runs),
    }


def outside(rows: list[dict[str, Any]]) -> list[str]:
    """Say whose student is not as good, or as bad, as the first system's."""
    first = rows[0]
    return [
        f"{row['system']} ends at {row['accuracy']:.4f}, {first['system']} at "
        f"{first['accuracy']:.4f}: expected within {BAND}"
        for row in rows
        if not abs(row["accuracy"] - first["accuracy"]) <= BAND
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Write the rows as Markdown."""
    lines = [
        "| system | s per round (range of medians) | CPU s per round | clients s | distil s "
        "| evaluate s | peak MB | MB sent per round | accuracy |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["range_s"]
        phases, sent = row["phases"], row["bytes_per_round"]
        of_clients = {name: phases[name] for name in CLIENTS if name in phases}
        parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in of_clients.items())
        clients = f"{sum(of_clients.values()):.2f}"
        lines.append(
            f"| {row['system']} | {row['seconds']:.2f} ({low:.2f}-{high:.2f}) "
            f"| {row['cpu_s']:.2f} "
            f"| {clients if len(of_clients) == 1 else f'{clients} ({parts})'} "
            f"| {phases['distil']:.2f} | {phases['evaluate']:.2f} "
            f"| {row['peak_bytes'] / 1e6:.0f} | {'-' if sent is None else f'{sent / 1e6:.2f}'} "
            f"| {row['accuracy']:.4f} |"
        )
    return "\n".join(lines)


def chosen(names: str, work: Work) -> list[str]:
    """Return the systems to run; by default all that can do the work.

    Args:
        names: Separated by commas; empty = all.
        work: What to do.

    Returns:
        Their names, without those that are not installed.
    """
    fitting = [n for n in SYSTEMS if not (work.digests and n in ONE_WAY_ONLY)]
    asked = names.split(",") if names else fitting
    for name in asked:
        if name in SYSTEMS and name not in fitting:
            raise SystemExit(f"--systems {name}: expected --protocol one-way")
    return available(asked, SYSTEMS)


def main() -> None:
    """Run every system and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments(parser)
    parser.set_defaults(rounds=3)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--systems", default="", help=f"of {', '.join(SYSTEMS)}; default: all")
    parser.add_argument("--timeout", type=int, default=900, metavar="S", help="of one run")
    parser.add_argument("--json", type=Path, help="write every figure here too")
    args = parser.parse_args()
    asked = work_of(args)
    names, work = chosen(args.systems, asked), replace(asked, rounds=asked.rounds + 1)
    runs: dict[str, list[Found]] = {name: [] for name in names}
    about = heading()  # of the code that is run: the tree may be another one when it is done
    with tempfile.TemporaryDirectory() as folder:
        for repetition in range(1, args.repetitions + 1):
            print(f"repetition {repetition} of {args.repetitions}", file=sys.stderr)
            for name in names:
                found = run_system(SYSTEMS[name], work, Path(folder), args.timeout)
                runs[name].append(found)
                said = f"{np.round(found.seconds, 2).tolist()} s, {found.accuracy[-1]:.4f}"
                print(f"    {name}: {said}", file=sys.stderr, flush=True)
    rows = [summary(name, runs[name]) for name in names]
    title = (
        f"{work.protocol}, K={work.clients}, P={work.proxy:,}, {work.networks}, {work.source}, "
        f"{work.private // work.clients} private images each, {args.repetitions} x {args.rounds} "
        "rounds timed"
    )
    print(f"{title}\n\n{about}\n\n{table(rows)}")
    if args.json:
        raw = {name: [asdict(run) for run in each] for name, each in runs.items()}
        report = {"title": title, "heading": about, "work": asdict(work), "rows": rows, "runs": raw}
        args.json.write_text(json.dumps(report, indent=1))
    if wrong := outside(rows):
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
