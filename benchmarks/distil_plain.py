"""Distillation as a plain loop: one client after the other in one process, in about 100 lines.

Data sets are normalised once and stay in memory as tensors, every client's network stays in memory,
probabilities are summed as clients finish; `torch.optim`, `zero_grad`, `backward`, `step`; images
in torch's default layout, networks as its tutorials write them (`--tuned`: as ours has them).
Threads are torch's own. Other systems that leave training to their user (Flower, BlazeFL) call
these functions.

    python -m benchmarks.distil_plain --threads 2 --clients 20 --proxy 1000
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from benchmarks.distil_work import (
    DISTIL_EPOCHS,
    LEARNING_RATE,
    LOCAL_BATCH,
    PROXY_BATCH,
    SEED,
    STUDENT_LEARNING_RATE,
    Federation,
    Watch,
    Work,
    arguments,
    conclude,
    federation_of,
    work_of,
)
from clients.data import Dataset, normalised
from clients.seeding import Purpose, generator, torch_seed
from clients.training.batches import batches

ANSWER_BATCH = 256


class Tensors:
    """A federation's examples as tensors: inputs [N, 1, 28, 28] and labels [N]."""

    def __init__(self, federation: Federation) -> None:
        splits = federation.splits
        self.partitions = [torch.from_numpy(indices) for indices in federation.partitions]
        self.private, self.labels = inputs_of(splits.private), labels_of(splits.private)
        self.proxy = inputs_of(splits.proxy)
        self.test, self.test_labels = inputs_of(splits.test), labels_of(splits.test)


def inputs_of(dataset: Dataset) -> Tensor:
    """Return all inputs, normalised."""
    return torch.from_numpy(normalised(dataset, np.arange(len(dataset))))


def labels_of(dataset: Dataset) -> Tensor:
    """Return all labels."""
    return torch.tensor(dataset.labels.astype(np.int64))


def fit(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    targets: Tensor,
    rng: np.random.Generator,
    *,
    epochs: int,
    batch_size: int,
) -> None:
    """Train the way the tutorials do, in the order that `rng` gives."""
    network.train()
    torch_seed(rng)  # ours draws one for dropout first
    for _ in range(epochs):
        for positions in batches(len(inputs), batch_size, rng):
            rows = torch.from_numpy(positions)
            optimizer.zero_grad()
            loss(network(inputs[rows]), targets[rows]).backward()
            optimizer.step()


def soft_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """KL(targets || softmax(logits)), the mean over the batch."""
    return kl_div(log_softmax(logits, 1), targets, reduction="batchmean")


def train(network: nn.Module, data: Tensors, server_round: int, client: int) -> None:
    """Train a client on its own examples."""
    own = data.partitions[client]
    rng = generator(SEED, Purpose.LOCAL_TRAINING, server_round, client)
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    examples = data.private[own], data.labels[own]
    fit(network, optimizer, cross_entropy, *examples, rng, epochs=1, batch_size=LOCAL_BATCH)


def digest(
    network: nn.Module, data: Tensors, targets: Tensor, server_round: int, client: int
) -> None:
    """Let a client imitate the soft labels of the round before."""
    rng = generator(SEED, Purpose.DIGEST, server_round, client)
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    numbers = {"epochs": DISTIL_EPOCHS, "batch_size": PROXY_BATCH}
    fit(network, optimizer, soft_loss, data.proxy, targets, rng, **numbers)


def distil(student: nn.Module, data: Tensors, targets: Tensor, server_round: int) -> None:
    """Let the student imitate the soft labels of this round."""
    rng = generator(SEED, Purpose.DISTILLATION, server_round)
    optimizer = torch.optim.Adam(student.parameters(), lr=STUDENT_LEARNING_RATE)
    numbers = {"epochs": DISTIL_EPOCHS, "batch_size": PROXY_BATCH}
    fit(student, optimizer, soft_loss, data.proxy, targets, rng, **numbers)


def answer(network: nn.Module, inputs: Tensor) -> Tensor:
    """Return logits [N, C]."""
    network.eval()
    with torch.inference_mode():
        return torch.cat([network(batch) for batch in inputs.split(ANSWER_BATCH)])


def accuracy(network: nn.Module, data: Tensors) -> float:
    """Return the share of the test set that a network gets right."""
    return float((answer(network, data.test).argmax(1) == data.test_labels).float().mean())


def run(work: Work, federation: Federation, watch: Watch) -> list[float]:
    """Run all rounds; return the student's accuracy after each."""
    data = Tensors(federation)
    student = federation.student()
    networks = [federation.network(k) for k in range(work.clients)]
    found: list[float] = []
    targets: Tensor | None = None
    for server_round in range(1, work.rounds + 1):
        total = torch.zeros(work.proxy, federation.splits.private.task.num_classes)
        for client, network in enumerate(networks):
            if work.digests and targets is not None:
                watch.begin("digest")
                digest(network, data, targets, server_round, client)
            watch.begin("train")
            train(network, data, server_round, client)
            watch.begin("answer")
            total += answer(network, data.proxy).softmax(1)
        watch.begin("distil")
        targets = total / work.clients
        distil(student, data, targets, server_round)
        watch.begin("evaluate")
        found.append(accuracy(student, data))
        watch.end_round()
    return found


def main() -> None:
    """Run the work and say what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--half", action="store_true", help="in bfloat16, by torch's autocast")
    parser.add_argument("--tuned", action="store_true", help="with our networks' layers and layout")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    watch, work = Watch(), work_of(args)
    # Not cached: what was cast would outlive the step that changes it.
    with torch.autocast("cpu", torch.bfloat16, enabled=args.half, cache_enabled=False):
        found = run(work, replace(federation_of(work), tuned=args.tuned), watch)
    conclude(args, watch, found, None)


if __name__ == "__main__":
    main()
