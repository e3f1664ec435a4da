"""How fast training is on a GPU: the parts of `gpu_check` that measure, and how much of each."""

import contextlib
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from flwr.clientapp import ClientApp
from torch import nn

from benchmarks import groups, peers
from benchmarks.gpu import flops_per_input, inputs_per_s, noise, task_of
from benchmarks.gpu_report import Part, peaks
from clients import models
from clients.models.factory import build
from clients.mutual.lockstep import train_peers
from sim.workers.ray_pool import RayPool

SMALL = ("mlp", "cnn", "lenet5")
IMAGES = dict.fromkeys(SMALL, (1, 28, 28)) | {"resnet8": (3, 32, 32)}
SHARE = 0.25
"""Of the device, for each worker."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    networks: tuple[str, ...]
    batch_size: int
    models: tuple[str, ...]
    groups: tuple[int, ...]
    repeats: int
    student: str
    batches: tuple[int, ...]
    examples: int
    epochs: int
    workers: int
    steps: int
    run: tuple[str, ...]


RUN = ("data=blobs", "probes=none", "tracking.figures_every=0", "clients.num_clients=8")
LARGE = Sizes(
    networks=tuple(models.__all__),
    batch_size=32,
    models=tuple(IMAGES),
    groups=(8, 32, 128, 512),
    repeats=3,
    student="resnet18",
    batches=(64, 256, 1024, 2048, 4096),
    examples=16384,
    epochs=3,
    workers=4,
    steps=30,
    run=(*RUN, "rounds=3"),
)
TINY = Sizes(
    networks=("mlp", "lenet5", "transformer"),
    batch_size=8,
    models=("mlp",),
    groups=(2,),
    repeats=1,
    student="lenet5",
    batches=(16,),
    examples=32,
    epochs=1,
    workers=2,
    steps=3,
    run=(*RUN, "rounds=1", "data.limit=160", "clients.training.epochs=1"),
)


# --- memory ---


@contextlib.contextmanager
def peak_memory(device: str) -> Iterator[Callable[[], float | None]]:
    """Yield what tells the GB that this process has had on the GPU at most."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    yield lambda: None if device == "cpu" else torch.cuda.max_memory_allocated() / 1e9


@contextlib.contextmanager
def used_memory(device: str) -> Iterator[Callable[[], float | None]]:
    """Yield what tells the GB that all processes have had there, seen 5 times a second."""
    if device == "cpu":
        yield lambda: None
        return
    seen, over = [0.0], threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            free, total = torch.cuda.mem_get_info()
            seen.append((total - free) / 1e9)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield lambda: max(seen)
    finally:
        over.set()
        thread.join()


def measure_groups(part: Part, sizes: Sizes, device: str, out: Path) -> None:
    """Train clients one by one, and in groups."""
    peak = peaks(device)
    for name in sizes.models:
        row, best = {"network": name}, 0.0
        with peak_memory(device) as memory:
            for size in sizes.groups:
                args = Namespace(device=device, sizes=[size], ways=["wide"], patience=20.0)
                args.repeats = sizes.repeats
                try:
                    taken = groups.measure(args, name, IMAGES[name])
                except torch.cuda.OutOfMemoryError:
                    row[f"x by {size}"] = None
                    torch.cuda.empty_cache()
                    continue
                alone, together = taken["one by one"], taken[f"wide {size}"]
                row.setdefault("clients/s one by one", 1 / alone)
                row[f"x by {size}"] = alone / together
                best = max(best, 1 / together)
            row["clients/s at best"] = best
            speed = best * groups.flops_of(name, IMAGES[name])
            row["TFLOP/s"], row["of float32's peak"] = speed / 1e12, peak and speed / peak[2]
            row["GB"] = memory()
        part.rows.append(row)


def measure_student(part: Part, sizes: Sizes, device: str, out: Path) -> None:
    """Distil into the student by batch size, in float32 and in bf16."""
    task, peak = task_of(sizes.student), peaks(device)
    dataset, targets = noise(task, sizes.examples)
    for autocast in (None, "bfloat16"):
        for batch_size in sizes.batches:
            network: nn.Module = build(
                getattr(models, sizes.student), task, np.random.default_rng(0)
            ).to(device)
            with peak_memory(device) as memory:
                speed = inputs_per_s(network, dataset, targets, batch_size, sizes.epochs, autocast)
                used = memory()
            flops = speed * flops_per_input(network, task)
            row = {"student": sizes.student, "precision": autocast or "float32 (tf32)"}
            row |= {"batch": batch_size, "inputs/s": speed, "TFLOP/s": flops / 1e12}
            row["of its peak"] = peak and flops / peak[0 if autocast else 1]
            part.rows.append(row | {"GB": used})


def measure_peers(part: Part, sizes: Sizes, device: str, out: Path) -> None:
    """Let four peers learn in one process, and in workers that share the device."""
    args = Namespace(steps=sizes.steps, batch_size=64)
    case = ("lenet5", "dml", sizes.workers)
    reference = peers.step_ms(train_peers, case, args)
    here = peers.step_ms(partial(train_peers, device=device), case, args)
    pool = RayPool(0, sizes.workers, device=device, gpus_per_worker=SHARE)
    try:
        pool.load(ClientApp())
        with used_memory(device) as memory:
            spread = peers.step_ms(pool.train_peers(print), case, args)
            used = memory()
    finally:
        pool.close()
    ways = {"one process, cpu": reference, f"one process, {device}": here}
    ways[f"{sizes.workers} workers, {device}"] = spread
    for way, (ms, state) in ways.items():
        row = {"peers": f"{case[2]} {case[0]}", "where": way, "ms per step": ms}
        part.rows.append(row | {"apart": peers.apart(state, reference[1])})
    part.rows[-1]["GB on the GPU"] = used
