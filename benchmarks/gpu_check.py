"""Does it work on a GPU, and how fast? `gpu_check.sh` runs this where there is torch and a GPU.

    python -m benchmarks.gpu_check OUT [--device cpu] [--parts zoo,groups]

Writes OUT/gpu.json and OUT/gpu.md, after each part anew, and ends with 1 if a test fails, a result
is further from the CPU's than its tolerance, or a part breaks. Goals that are not met are said.
On the CPU everything is tiny and what needs a GPU is left out: that tries the script itself.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import nn

from benchmarks.gpu import noise, task_of
from benchmarks.gpu_report import ROOT, Goal, Part, about, write
from benchmarks.gpu_speed import (
    LARGE,
    SHARE,
    SMALL,
    TINY,
    Sizes,
    measure_groups,
    measure_peers,
    measure_student,
    used_memory,
)
from benchmarks.work import smooth
from clients import models
from clients.models.factory import Parameters, build, parameters_of
from clients.training.loop import train
from sim.workers.process_setup import keep_memory

TOLERANCE = {"float32": 1e-3, "tf32": 1e-1}
"""Of a network's parameters after three steps, of the distance that they moved."""
RUN_TOLERANCE = 5e-2
"""Of the student's parameters after a whole run, of their length."""
ACCURACY_TOLERANCE = 0.05

TESTS = ["tests/test_devices.py"]


# --- is it right? ---


def cuda_tests(part: Part, sizes: Sizes, device: str, out: Path) -> None:
    """Run the tests that name devices; on the CPU those marked cuda are skipped."""
    told = out / "tests.xml"
    pytest = [sys.executable, "-m", "pytest", *TESTS, "-p", "no:cacheprovider", "-W", "default"]
    if device != "cpu":
        pytest += ["-m", "cuda"]
    done = subprocess.run(
        [*pytest, f"--junitxml={told}"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    (out / "tests.txt").write_text(done.stdout + done.stderr)
    suite = ElementTree.parse(told).getroot()[0].attrib
    found = {name: int(suite[name]) for name in ("tests", "failures", "errors", "skipped")}
    part.rows.append({**found, "s": float(suite["time"])})
    if done.returncode:
        part.faults.append(f"pytest ended with {done.returncode}, see tests.txt")
    if found["skipped"] == found["tests"]:
        part.faults.append("no test was run")


def distance(found: Parameters, wanted: Parameters, start: Parameters | None = None) -> float:
    """Return how far parameters are apart, relative to how far they moved or to their length."""
    names = [name for name in wanted if np.issubdtype(wanted[name].dtype, np.floating)]
    apart = sum(float(np.square(found[n].astype(float) - wanted[n]).sum()) for n in names)
    moved = sum(
        float(np.square(wanted[n].astype(float) - (0 if start is None else start[n])).sum())
        for n in names
    )
    return float(np.sqrt(apart / moved))


def network_of(name: str) -> nn.Module:
    """Return a network of the zoo, smooth: else VGG-9 is 2 % apart in float32 too."""
    return smooth(build(getattr(models, name), task_of(name), np.random.default_rng(0)))


def trained(name: str, sizes: Sizes, device: str) -> Parameters:
    """Train a network of the zoo for three steps."""
    task, network = task_of(name), network_of(name).to(device)
    dataset, _ = noise(task, 3 * sizes.batch_size)
    labels, ids = torch.tensor(dataset.labels), np.arange(len(dataset))
    numbers = {"epochs": 1, "batch_size": sizes.batch_size}
    numbers["optimizer"] = partial(torch.optim.SGD, lr=0.01)
    train(network, dataset, ids, labels, task.loss, np.random.default_rng(1), **numbers)
    return parameters_of(network)


def compare_zoo(part: Part, sizes: Sizes, device: str, out: Path) -> None:
    """Train each network here and there; without a GPU, with torch's plain kernels."""
    before = torch.backends.cudnn.allow_tf32
    for name in sizes.networks:
        start, wanted = parameters_of(network_of(name)), trained(name, sizes, "cpu")
        row: dict[str, Any] = {"network": name}
        for precision in ("float32",) if device == "cpu" else ("float32", "tf32"):
            torch.backends.cudnn.allow_tf32 = precision == "tf32"
            torch.backends.mkldnn.set_flags(device != "cpu")
            try:
                found = trained(name, sizes, device)
            finally:  # also where it broke: the next part measures with what was
                torch.backends.mkldnn.set_flags(True)
                torch.backends.cudnn.allow_tf32 = before
            row[precision] = apart = distance(found, wanted, start)
            if not apart <= TOLERANCE[precision]:
                part.faults.append(f"{name} is {apart:.1e} apart in {precision}")
        part.rows.append(row)


def run(words: list[str], folder: Path) -> tuple[Parameters, float, float]:
    """Run `python run.py`; return the student's parameters and accuracy, and the seconds."""
    command = [sys.executable, "run.py", *words, f"hydra.run.dir={folder}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    result = json.loads((folder / "result.json").read_text())
    student = load_file(folder / "student.safetensors")
    return student, result["student_accuracy"], result["wall_time_s"]


def compare_runs(part: Part, sizes: Sizes, device: str, out: Path) -> None:
    """Run DLAD and mutual learning on the CPU, on the device, and over workers that share it."""
    there = [f"sim.device={device}", f"student_device={device}"]
    shared = ["sim=ray", *there, f"sim.workers={sizes.workers}", f"sim.gpus_per_worker={SHARE}"]
    ways = {"cpu": ["sim=inline"], device: ["sim=inline", *there], f"{device}, Ray": shared}
    for strategy in ("dlad", "dml"):
        wanted: tuple[Parameters, float, float] | None = None
        for way, words in ways.items():
            folder = out / "runs" / f"{strategy}-{way.replace(', ', '-')}"
            with used_memory(device) as memory:
                found = run([*sizes.run, f"strategy={strategy}", *words], folder)
                used = memory()
            wanted = wanted or found
            apart, accuracy = distance(found[0], wanted[0]), found[1] - wanted[1]
            part.rows.append(
                {"strategy": strategy, "where": way, "apart": apart, "accuracy": found[1]}
                | {"s": found[2], "GB on the GPU": None if way == "cpu" else used}
            )
            if not (apart <= RUN_TOLERANCE and abs(accuracy) <= ACCURACY_TOLERANCE):
                part.faults.append(f"{strategy} on {way}: {apart:.1e} and {accuracy:+.3f} apart")


# --- all of it ---

PARTS: dict[str, tuple[Callable[[Part, Sizes, str, Path], None], str, str]] = {
    "tests": (cuda_tests, "Tests", "Those marked cuda, inline and over Ray."),
    "zoo": (
        compare_zoo,
        "Each network beside the CPU",
        "Parameters after three steps, of the distance that they moved; ReLU and max-pool are "
        f"smooth here. At most {TOLERANCE['float32']} in float32, {TOLERANCE['tf32']} with TF32.",
    ),
    "runs": (
        compare_runs,
        "Runs beside the CPU",
        f"`python run.py`; workers have {SHARE} of the device each. The student's parameters, of "
        f"their length, at most {RUN_TOLERANCE} apart, accuracy at most {ACCURACY_TOLERANCE}.",
    ),
    "groups": (
        measure_groups,
        "Clients in groups",
        "75 examples, one epoch in batches of 32; columns: how many times faster than one by one.",
    ),
    "student": (
        measure_student,
        "Distillation",
        "The strategies' own loop, data on the CPU; it has no CUDA graphs, so none are measured.",
    ),
    "peers": (measure_peers, "Peers in lock-step", "Deep mutual learning, 28x28 images."),
}


def goals_of(parts: dict[str, Part]) -> list[Goal]:
    """Say which goals the tables meet."""
    ratios = [row.get("x by 128") for row in parts["groups"].rows if row["network"] in SMALL]
    slowest = None if not ratios or None in ratios else min(ratios)  # one had no room for them
    halves = [row for row in parts["student"].rows if row["precision"] == "bfloat16"]
    shares = [row["of its peak"] for row in halves]
    known = [share for share in shares if share is not None]
    return [
        Goal("groups of 128 small clients, times one by one", 20.0, slowest),
        Goal("ResNet-18 at its best batch, of bf16's peak", 0.4, max(known, default=None)),
    ]


def check(out: Path, names: list[str], sizes: Sizes, device: str, minutes: float) -> bool:
    """Go through the parts; a broken one is a fault, and the others follow.

    Args:
        out: Gets gpu.json, gpu.md and logs.
        names: Of the parts.
        sizes: How much.
        device: "cuda" or "cpu".
        minutes: After which no part is begun.

    Returns:
        Whether all is well.
    """
    began, said, passed = time.perf_counter(), about(device), False
    parts = {name: Part(*PARTS[name][1:]) for name in PARTS}
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        part, start = parts[name], time.perf_counter()
        print(f"{start - began:4.0f} s  {part.title}", flush=True)
        try:
            if start - began > 60 * minutes:
                part.faults.append(f"left out: {minutes:g} minutes were over")
            else:
                PARTS[name][0](part, sizes, device, out)
        except Exception as error:  # whatever it is, the other parts are worth having
            part.faults.append(f"{type(error).__name__}: {str(error).strip()[-600:]}")
            traceback.print_exc()
        part.seconds = time.perf_counter() - start
        done = [parts[each] for each in names if parts[each].seconds]
        passed = write(out, said, done, goals_of(parts))
    return passed


def main() -> None:
    """Check, print the tables, and end with 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--parts", default=",".join(PARTS), help="separated by commas")
    parser.add_argument("--minutes", type=float, default=7.0, help="then no part is begun")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU here; --device cpu tries the script itself")
    torch.set_num_threads(min(8, len(os.sched_getaffinity(0))))
    keep_memory()
    sizes = TINY if args.device == "cpu" else LARGE
    out = args.out.resolve()
    passed = check(out, args.parts.split(","), sizes, args.device, args.minutes)
    print((out / "gpu.md").read_text())
    sys.exit(not passed)


if __name__ == "__main__":
    main()
