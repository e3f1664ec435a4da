"""Seconds per round of federated averaging: the plain loop, ours, Flower, pfl-research, the floor.

    python -m benchmarks.rounds --clients 1000 --cohort 100 --repetitions 3
    python -m benchmarks.rounds --systems plain-1,ours-ray-2,pfl-2 --model lr

Every system does the work of `work.py` in processes of its own. In turn, (1) all run a small,
smooth version of it and must end in the same parameters, within 1e-5 of the distance moved; (2) all
run two rounds while their memory is sampled; (3) all are timed, several times, interleaved.

A round's seconds are the median over all repetitions of all rounds but each repetition's first.
Ratios are taken within a repetition, and their median is shown. Start-up is the time from the start
of the process to the end of the first round, less the median round: engines load and warm up
lazily, so the start of the first round says little. "apart" is from (1).
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.results import heading
from benchmarks.systems import System, available, environment, run_process
from benchmarks.work import (
    MODELS,
    Work,
    command_line,
    initial_model,
    lean_environment,
    parameters_of,
    write_data,
)

PFL_PYTHON = environment("pfl")
AGREE = 1e-5
"""How far apart the parameters of two systems may be, as a part of the distance that they moved."""


LEAN = lean_environment()
SYSTEMS = {
    "plain-1": System(["benchmarks.plain", "--threads", "1"]),
    "plain-2": System(["benchmarks.plain", "--threads", "2"], env={"OMP_NUM_THREADS": "2"}),
    "floor-1": System(["benchmarks.floor", "--workers", "1"]),
    "floor-2": System(["benchmarks.floor", "--workers", "2"]),
    "ours-inline": System(["benchmarks.ours", "--workers", "0"]),
    "ours-ray-1": System(["benchmarks.ours", "--workers", "1"]),
    "ours-ray-2": System(["benchmarks.ours", "--workers", "2"]),
    "ours-ray-2-alone": System(["benchmarks.ours", "--workers", "2", "--alone"]),
    "ours-ray-2-fedavg": System(["benchmarks.ours", "--workers", "2", "--fedavg"]),
    "flower": System(["benchmarks.flower", "--step", "plain"]),
    "flower-tuned": System(["benchmarks.flower", "--step", "lean"], env=LEAN),
    "pfl-1": System(["benchmarks.pfl", "--layout", "contiguous"], PFL_PYTHON),
    "pfl-2": System(["benchmarks.pfl", "--layout", "contiguous", "--processes", "2"], PFL_PYTHON),
    "pfl-2-tuned": System(["benchmarks.pfl", "--processes", "2"], PFL_PYTHON, LEAN),
}


@dataclass(frozen=True, eq=False)
class Found:
    """What one run of a system came to: seconds, and the final parameters as one array."""

    seconds: list[float]
    start_s: float
    flat: Any
    peak_bytes: int


def run_system(system: System, work: Work, folder: Path, *, sample: bool, timeout_s: int) -> Found:
    """Run a system in a process of its own.

    Args:
        system: How it is started.
        work: What to do.
        folder: Where the data is.
        sample: Sample its memory.
        timeout_s: When to give up.

    Returns:
        What it found.

    Raises:
        RuntimeError: It failed; with the end of what it said.
    """
    result = folder / f"{uuid.uuid4().hex}.npz"
    words = [*command_line(work), "--data", str(folder), "--result", str(result)]
    began = time.monotonic()
    every_s = 0.2 if sample else None
    peak_bytes = run_process(system, words, sample_every_s=every_s, timeout_s=timeout_s)
    found = np.load(result)
    result.unlink()
    seconds = found["seconds"].tolist()
    usual = statistics.median(seconds[1:] or seconds)
    return Found(seconds, found["ticks"][1] - began - usual, found["flat"], peak_bytes)


def run_all(names: list[str], work: Work, folder: Path, *, sample: bool, timeout_s: int) -> dict:
    """Run every system once, one after the other."""
    found = {}
    for name in names:
        found[name] = run_system(SYSTEMS[name], work, folder, sample=sample, timeout_s=timeout_s)
        print(
            f"    {name}: {np.round(found[name].seconds, 3).tolist()}", file=sys.stderr, flush=True
        )
    return found


def distances(found: dict[str, Found], work: Work) -> dict[str, float]:
    """Return how far each system's parameters are from the first one's, by the distance moved."""
    initial = parameters_of(initial_model(work, channels_last=False))
    start = np.concatenate([initial[name].ravel() for name in sorted(initial)])
    reference = next(iter(found.values())).flat
    moved = np.linalg.norm(reference - start)
    return {name: float(np.linalg.norm(f.flat - reference) / moved) for name, f in found.items()}


def check(names: list[str], work: Work, timeout_s: int) -> dict[str, float]:
    """Let all systems do a small smooth version of the work and compare where they end.

    Raises:
        RuntimeError: A system computes something else.
    """
    small = replace(work, clients=40, cohort=10, rounds=2, smooth=True)
    with tempfile.TemporaryDirectory() as name:
        write_data(small, Path(name))
        found = run_all(names, small, Path(name), sample=False, timeout_s=timeout_s)
    apart = distances(found, small)
    for name, distance in apart.items():
        if not distance <= AGREE:
            raise RuntimeError(f"{name} computes something else than {names[0]}: {distance} apart")
    return apart


def summary(
    names: list[str], reference: str, work: Work, timed: list[dict], sampled: dict, apart: dict
) -> list[dict[str, Any]]:
    """Reduce all repetitions to one row per system.

    Args:
        names: The systems.
        reference: Which one the ratios are to.
        work: What was done.
        timed: Per repetition, what each system found.
        sampled: What each found while its memory was sampled.
        apart: How far each one's parameters were from the first's.

    Returns:
        Rows of plain values.
    """
    median = {n: [statistics.median(found[n].seconds[1:]) for found in timed] for n in names}
    rows = []
    for name in names:
        seconds = statistics.median([s for found in timed for s in found[name].seconds[1:]])
        ratios = [a / b for a, b in zip(median[name], median[reference], strict=True)]
        rows.append(
            {
                "system": name,
                "seconds": seconds,
                "range_s": [min(median[name]), max(median[name])],
                "clients_per_s": work.cohort / seconds,
                "start_s": statistics.median(found[name].start_s for found in timed),
                "peak_bytes": sampled[name].peak_bytes,
                "ratio": statistics.median(ratios),
                "apart": apart[name],
            }
        )
    return rows


def table(rows: list[dict[str, Any]], reference: str) -> str:
    """Write the rows as Markdown."""
    lines = [
        "| system | s per round (range of medians) | clients per s | start-up s | peak MB "
        f"| times {reference} | apart |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["range_s"]
        lines.append(
            f"| {row['system']} | {row['seconds']:.3f} ({low:.3f}-{high:.3f}) "
            f"| {row['clients_per_s']:.0f} | {row['start_s']:.1f} | {row['peak_bytes'] / 1e6:.0f} "
            f"| {row['ratio']:.2f} | {row['apart']:.0e} |"
        )
    return "\n".join(lines)


def machine() -> str:
    """Describe what this runs on, in words."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, {gpu}, Python {platform.python_version()}, torch {torch.__version__}"


def main() -> None:
    """Run every system and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="cnn")
    parser.add_argument("--clients", type=int, default=1000, metavar="N")
    parser.add_argument("--cohort", type=int, default=100, metavar="C")
    parser.add_argument("--rounds", type=int, default=5, help="timed, of each repetition")
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="separated by commas")
    parser.add_argument("--against", default="ours-ray-2", help="the system of the ratios")
    parser.add_argument("--timeout", type=int, default=600, metavar="S", help="of one run")
    parser.add_argument("--json", type=Path, help="write every figure here too")
    args = parser.parse_args()
    names = available(args.systems.split(","), SYSTEMS)
    if args.against not in names:
        raise SystemExit(f"--against {args.against}: expected one of the systems that are run")
    work = Work(args.model, args.clients, args.cohort, args.rounds + 1)
    about = heading()  # of the code that is run: the tree may be another one when it is done
    print("comparing parameters", file=sys.stderr)
    apart = check(names, work, args.timeout)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(work, folder)
        print("sampling memory", file=sys.stderr)
        short = replace(work, rounds=2)
        sampled = run_all(names, short, folder, sample=True, timeout_s=args.timeout)
        timed = []
        for repetition in range(1, args.repetitions + 1):
            print(f"timing, {repetition} of {args.repetitions}", file=sys.stderr)
            timed.append(run_all(names, work, folder, sample=False, timeout_s=args.timeout))
    rows = summary(names, args.against, work, timed, sampled, apart)
    title = (
        f"{args.model}, N={args.clients:,}, C={args.cohort}, {args.repetitions} x {args.rounds} "
        f"rounds timed; {machine()}"
    )
    title = f"{title}\n\n{about}"
    print(f"{title}\n\n{table(rows, args.against)}")
    if args.json:
        raw = [{n: found[n].seconds for n in names} for found in timed]
        report = {"title": title, "work": asdict(work), "rows": rows, "seconds": raw}
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
