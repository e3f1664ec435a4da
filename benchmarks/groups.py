"""Training like clients together, beside one by one: what `execution.policy.way_of` is made from.

    python -m benchmarks.groups
    python -m benchmarks.groups --models mlp cnn resnet8 --sizes 8 32 128 --device cuda

Each client has 75 examples, one local epoch of plain SGD in batches of 32, and starts from the same
parameters; loading them and reading them back is part of its time. On the CPU one thread works, and
its own time is counted, which other processes disturb less than the clock on the wall. Cells are
how many times faster than one by one; the ways take turns, and the best of the repeats counts.
Set the allocator as workers do (`GLIBC_TUNABLES`), or most of the time goes into page faults.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.results import heading
from clients import models
from clients.data import Dataset, classification
from clients.execution.batched_loop import train_together
from clients.execution.model_cache import as_tensors
from clients.execution.stack import Stack, Way
from clients.models.factory import build, load_parameters, parameters_of
from clients.training.loop import train
from clients.training.losses import cross_entropy

EXAMPLES = 75  # per client: three batches, the last one short
NUMBERS = {"epochs": 1, "batch_size": 32, "optimizer": partial(torch.optim.SGD, lr=0.01)}
OTHER_TASKS = ("bag_of_embeddings", "transformer", "fcn")  # of texts, and of pixels
NORMED = ("resnet8", "resnet18", "resnet20", "mobilenet_v2_small", "shufflenet_v2_05")


def noise(shape: tuple[int, int, int], num_clients: int) -> Dataset:
    rng = np.random.default_rng(0)
    n = num_clients * EXAMPLES
    images = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    mean, std = (0.5,) * shape[0], (0.3,) * shape[0]
    return Dataset(
        "noise",
        images,
        rng.integers(0, 10, n),
        classification(images.shape[1:], 10),
        1 / 255,
        mean,
        std,
    )


def one_by_one(model: torch.nn.Module, dataset: Dataset, num_clients: int) -> None:
    start = parameters_of(model)
    for k in range(num_clients):
        load_parameters(model, start)
        own = np.arange(k * EXAMPLES, (k + 1) * EXAMPLES)
        labels = torch.tensor(dataset.labels[own])
        train(model, dataset, own, labels, cross_entropy, np.random.default_rng(k), **NUMBERS)
        parameters_of(model)
    load_parameters(model, start)


def together(stack: Stack, start: dict[str, Any], dataset: Dataset) -> None:
    own = np.arange(stack.size * EXAMPLES).reshape(stack.size, EXAMPLES)
    labels = [torch.tensor(dataset.labels[ids]) for ids in own]
    rngs = [np.random.default_rng(k) for k in range(stack.size)]
    stack.load_all(as_tensors(start, str(stack.device)))
    outcomes = train_together(stack, dataset, own, labels, cross_entropy, rngs, **NUMBERS)
    assert not any(isinstance(outcome, Exception) for outcome in outcomes), outcomes
    for k in range(stack.size):
        stack.parameters_of(k)


def seconds(work: Callable[[], None], device: torch.device) -> float:
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def candidates(
    model: torch.nn.Module, dataset: Dataset, sizes: Sequence[int], ways: Sequence[Way]
) -> Iterator[tuple[str, int, Callable[[], None]]]:
    """Yield a name, how many clients it trains, and what trains them."""
    yield "one by one", 4, partial(one_by_one, model, dataset, 4)
    start = parameters_of(model)
    for way in ways:
        for size in sizes:
            stack = Stack(model, size, way)
            yield f"{way} {size}", size, partial(together, stack, start, dataset)


def measure(args: argparse.Namespace, name: str, shape: tuple[int, int, int]) -> dict[str, float]:
    """Return seconds per client by candidate."""
    function, _, norm = name.partition("-")
    chosen = partial(getattr(models, function), **({"norm": norm} if norm else {}))
    device = torch.device(args.device)
    model = build(chosen, classification(shape, 10), np.random.default_rng(0)).to(device)
    dataset = noise(shape, max([4, *args.sizes]))
    best: dict[str, float] = {}
    for _ in range(1 + args.repeats):  # the first warms up
        for candidate, size, work in candidates(model, dataset, args.sizes, args.ways):
            if best and size * best["one by one"] > args.patience:
                best[candidate] = math.nan
                continue
            best[candidate] = min(best.get(candidate, math.inf), seconds(work, device) / size)
    return best


def flops_of(name: str, shape: tuple[int, int, int]) -> int:
    """Count the floating point operations of one client's training, forward and backward."""
    model = build(
        getattr(models, name.partition("-")[0]), classification(shape, 10), np.random.default_rng(0)
    )
    counter = FlopCounterMode(display=False)
    with counter:
        one_by_one(model, noise(shape, 1), 1)
    return int(counter.get_total_flops())


def row(args: argparse.Namespace, name: str, shape: tuple[int, int, int]) -> list[str]:
    best = measure(args, name, shape)
    alone = best["one by one"]
    fastest = min(taken for taken in best.values() if taken > 0)
    speed = flops_of(name, shape) / fastest
    share = f"{speed / 1e9:.1f}" + (f" ({speed / args.peak:.2%})" if args.peak else "")
    columns = [f"{way} {size}" for way in args.ways for size in args.sizes]
    ratios = [f"{alone / best[column]:.2f}" for column in columns]
    image = "x".join(str(n) for n in shape)
    return [name, image, f"{alone * 1e3:.2f}", *ratios, f"{1 / fastest:.0f}", share]


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    plain = [name for name in models.__all__ if name not in (*NORMED, *OTHER_TASKS)]
    normed = [f"{name}-{norm}" for name in NORMED for norm in ("batch", "group")]
    parser.add_argument("--models", nargs="+", default=[*plain, *normed])
    parser.add_argument("--sizes", nargs="+", type=int, default=[4, 8, 16, 32])
    parser.add_argument("--ways", nargs="+", default=["wide", "vmap"])
    parser.add_argument("--shapes", nargs="+", default=["1x28x28", "3x32x32"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--patience", type=float, default=10.0, help="seconds at most")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peak", type=float, help="the device's peak, operations per second")
    args = parser.parse_args()
    torch.set_num_threads(1)
    columns = [f"{way} {size}" for way in args.ways for size in args.sizes]
    head = ["model", "image", "one by one, ms", *columns, "clients/s at best", "Gflop/s at best"]
    print(f"{heading()}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for name in args.models:
        for text in args.shapes:
            shape = tuple(int(n) for n in text.split("x"))
            print(f"| {' | '.join(row(args, name, shape))} |", flush=True)


if __name__ == "__main__":
    main()
