"""Distilling into a student, images per second, on the GPU if there is one.

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
from clients.data import Dataset, classification
from clients.models.factory import build
from clients.training.loop import train
from clients.training.losses import kl

SHAPES = dict.fromkeys(("logistic_regression", "mlp", "lenet5", "cnn"), (1, 28, 28))
COLOUR = (3, 32, 32)
NUM_CLASSES = 10


def noise(shape: tuple[int, int, int], number: int) -> tuple[Dataset, Tensor]:
    """Draw proxy examples and what an ensemble says of them."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (number, *shape), dtype=np.uint8)
    mean, std = (0.5,) * shape[0], (0.3,) * shape[0]
    labels = rng.integers(0, NUM_CLASSES, number)
    logits = torch.from_numpy(rng.normal(size=(number, NUM_CLASSES)).astype(np.float32))
    dataset = Dataset(
        "noise", images, labels, classification(images.shape[1:], NUM_CLASSES), 1 / 255, mean, std
    )
    return dataset, logits.softmax(-1)


def flops_per_image(model: nn.Module, shape: tuple[int, int, int]) -> float:
    """Count multiplications and additions of one training step, per image."""
    device = next(model.parameters()).device
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(8, *shape, device=device)).sum().backward()
    model.zero_grad()
    return counter.get_total_flops() / 8


def images_per_s(
    model: nn.Module, dataset: Dataset, targets: Tensor, batch_size: int, epochs: int
) -> float:
    """Distil for some epochs after one to warm up; return the median epoch's speed."""
    device = next(model.parameters()).device
    optimizer = partial(torch.optim.SGD, lr=0.01)
    indices = np.arange(len(dataset))
    taken = []
    for epoch in range(epochs + 1):
        began = time.perf_counter()
        rng = np.random.default_rng(epoch)
        loss = partial(kl, temperature=1.0)
        options = {"epochs": 1, "batch_size": batch_size, "optimizer": optimizer}
        train(model, dataset, indices, targets, loss, rng, **options)
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
        "| student | batch | images per s | GFLOP per s |\n|---|---|---|---|"
    )
    for name in args.models.split(","):
        shape = SHAPES.get(name, COLOUR)
        dataset, targets = noise(shape, args.examples)
        for batch_size in map(int, args.batches.split(",")):
            rng = np.random.default_rng(0)
            model = build(getattr(models, name), classification(shape, NUM_CLASSES), rng).to(
                args.device
            )
            speed = images_per_s(model, dataset, targets, batch_size, args.epochs)
            gflops = speed * flops_per_image(model, shape) / 1e9
            print(f"| {name} | {batch_size} | {speed:,.0f} | {gflops:.1f} |", flush=True)


if __name__ == "__main__":
    main()
