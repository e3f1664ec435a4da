"""Distilling into a student, inputs per second, on the GPU if there is one.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --device cuda --models resnet8 --batches 128,512,2048

Soft labels, Kullback-Leibler divergence, plain SGD, through the one training loop that the
strategies use (`clients.training.loop.train`). The first epoch is not counted; the median of the
others is. Arithmetic is counted by torch's own counter, forwards and backwards.
"""

import argparse
import os
import statistics
import time
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.results import heading
from clients import models
from clients.data import Dataset, Task, classification, dense_labelling
from clients.models.factory import build
from clients.training.loop import train
from clients.training.losses import kl
from clients.training.single_gradients import Precision
from clients.training.task_objectives import of_examples

SHAPES = dict.fromkeys(("logistic_regression", "mlp", "lenet5", "cnn"), (1, 28, 28))
COLOUR = (3, 32, 32)
TOKENS = 32
NUM_CLASSES = 10


def task_of(name: str) -> Task:
    """Return what a network of the zoo is to predict: texts, pixels, or images of its size."""
    if name in ("bag_of_embeddings", "transformer"):
        return classification((TOKENS,), NUM_CLASSES, num_tokens=256)
    shape = SHAPES.get(name, COLOUR)
    return (
        dense_labelling(shape, NUM_CLASSES) if name == "fcn" else classification(shape, NUM_CLASSES)
    )


def noise(task: Task, number: int) -> tuple[Dataset, Tensor]:
    """Draw proxy examples and what an ensemble says of them."""
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (number, *task.input_shape), dtype=np.uint8)
    channels = 0 if task.num_tokens else task.input_shape[0]
    labels = rng.integers(0, NUM_CLASSES, (number, *task.output_shape[1:]))
    logits = torch.from_numpy(
        rng.normal(size=(number * task.sites, NUM_CLASSES)).astype(np.float32)
    )
    dataset = Dataset("noise", inputs, labels, task, 1 / 255, (0.5,) * channels, (0.3,) * channels)
    return dataset, task.by_input(logits.softmax(-1))


def flops_per_input(model: nn.Module, task: Task) -> float:
    """Count multiplications and additions of one training step, per input."""
    device = next(model.parameters()).device
    with FlopCounterMode(display=False) as counter:
        model(task.blank(8).to(device)).sum().backward()
    model.zero_grad()
    return counter.get_total_flops() / 8


def inputs_per_s(
    model: nn.Module,
    dataset: Dataset,
    targets: Tensor,
    batch_size: int,
    epochs: int,
    autocast: Precision | None = None,
) -> float:
    """Distil for some epochs after one to warm up; return the median epoch's speed."""
    device = next(model.parameters()).device
    optimizer = partial(torch.optim.SGD, lr=0.01)
    indices = np.arange(len(dataset))
    loss = of_examples(partial(kl, temperature=1.0), dataset.task)
    options = {"epochs": 1, "batch_size": batch_size, "optimizer": optimizer, "autocast": autocast}
    taken = []
    for epoch in range(epochs + 1):
        began = time.perf_counter()
        train(model, dataset, indices, targets, loss, np.random.default_rng(epoch), **options)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    return len(dataset) / statistics.median(taken[1:])


def main() -> None:
    """Distil into every model with every batch size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(models.__all__), help="separated by commas")
    parser.add_argument("--batches", default="32,128,512", help="separated by commas")
    parser.add_argument("--examples", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=5, help="timed")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    where = torch.cuda.get_device_name() if args.device != "cpu" else f"{args.threads} threads"
    print(
        f"{heading()}\n\n"
        f"{args.examples:,} examples, median of {args.epochs} epochs, {where}\n\n"
        "| student | batch | inputs per s | GFLOP per s |\n|---|---|---|---|"
    )
    for name in args.models.split(","):
        task = task_of(name)
        dataset, targets = noise(task, args.examples)
        for batch_size in map(int, args.batches.split(",")):
            rng = np.random.default_rng(0)
            model = build(getattr(models, name), task, rng).to(args.device)
            speed = inputs_per_s(model, dataset, targets, batch_size, args.epochs)
            gflops = speed * flops_per_input(model, task) / 1e9
            print(f"| {name} | {batch_size} | {speed:,.0f} | {gflops:.1f} |", flush=True)


if __name__ == "__main__":
    main()
