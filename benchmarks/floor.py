"""The floor: the bare training of the same clients, and nothing else. No engine can be faster.

As many processes as workers, each with one thread, the model and the data in place, the cohort
split longest first, the lean step (`torch.autograd.grad` and one `torch._foreach_add_`, images in
`channels_last`), the allocator told to keep its memory. A round's seconds are those of the busier
process, from its first client to its last; what passes between the processes afterwards is not
counted. One client at a time: grouping clients may go below this floor, an engine without may not.

    python -m benchmarks.floor --workers 2 --clients 1000 --cohort 100
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.work import (
    LEARNING_RATE,
    Clock,
    Federation,
    Parameters,
    Work,
    arguments,
    batches_of,
    cohort_of,
    conclude,
    data_folder,
    initial_model,
    lean_environment,
    parameters_of,
    read_data,
    shares,
    tensors_of,
    work_of,
)


def train(model: nn.Module, federation: Federation, server_round: int, client: int) -> None:
    """Train a client's model for one epoch, with as little around the arithmetic as possible."""
    parameters = list(model.parameters())
    for indices in batches_of(federation, server_round, client):
        inputs, labels = tensors_of(federation.dataset, indices)
        gradients = torch.autograd.grad(cross_entropy(model(inputs), labels), parameters)
        with torch.no_grad():
            torch._foreach_add_(parameters, gradients, alpha=-LEARNING_RATE)


@torch.no_grad()
def train_share(
    model: nn.Module,
    federation: Federation,
    server_round: int,
    clients: list[int],
    current: list[Tensor],
    examples: int,
) -> list[Tensor]:
    """Train some clients, each from `current`; return their part of the weighted mean."""
    parameters = list(model.parameters())
    total = [torch.zeros_like(value) for value in parameters]
    for k in clients:
        torch._foreach_copy_(parameters, current)
        with torch.enable_grad():
            train(model, federation, server_round, k)
        weight = len(federation.partitions[k]) / examples
        torch._foreach_add_(total, parameters, alpha=weight)
    return total


@torch.no_grad()
def run(
    work: Work,
    federation: Federation,
    tick: Callable[[], None],
    exchange: Callable[[list[Tensor]], None],
    worker: int = 0,
    workers: int = 1,
) -> tuple[Parameters, list[float]]:
    """Train one worker's share of every round; return the final parameters, and seconds.

    Args:
        work: What to do.
        federation: Its data.
        tick: Called at the start of every round and at the end of the last.
        exchange: Replaces parts of the mean by their sum over the workers.
        worker: Which worker this is.
        workers: How many there are.

    Returns:
        Parameters after the last round, and the seconds of this worker's training in each.
    """
    torch.set_num_threads(1)
    model = initial_model(work, channels_last=True)
    current = [value.clone() for value in model.parameters()]
    seconds = []
    for server_round in range(1, work.rounds + 1):
        tick()
        began = time.perf_counter()
        examples = sum(len(federation.partitions[k]) for k in cohort_of(work, server_round))
        mine = shares(work, federation, workers, server_round)[worker]
        total = train_share(model, federation, server_round, mine, current, examples)
        seconds.append(time.perf_counter() - began)
        exchange(total)
        current = total
    tick()
    torch._foreach_copy_(list(model.parameters()), current)
    return parameters_of(model), seconds


def _work(
    work: Work, folder: Path, worker: int, workers: int, sums: Any, barrier: Any, answers: Any
) -> None:
    """Be one of several processes."""
    rows = np.frombuffer(sums, np.float32).reshape(workers, -1)

    def exchange(total: list[Tensor]) -> None:
        rows[worker] = torch.cat([value.reshape(-1) for value in total]).numpy()
        barrier.wait()
        summed = torch.from_numpy(rows.sum(axis=0))
        barrier.wait()  # nobody overwrites a row that another still reads; all begin together
        for value, flat in zip(total, summed.split([v.numel() for v in total]), strict=True):
            value.copy_(flat.reshape(value.shape))

    clock = Clock()
    parameters, seconds = run(work, read_data(folder), clock, exchange, worker, workers)
    answers.put((worker, clock.ticks, seconds, parameters if worker == 0 else None))


def run_processes(
    work: Work, folder: Path, clock: Clock, workers: int
) -> tuple[Parameters, list[float]]:
    """Start the processes; return the final parameters, and the seconds of the busier one."""
    context = multiprocessing.get_context("spawn")
    size = sum(value.numel() for value in initial_model(work, channels_last=True).parameters())
    sums = context.RawArray("f", workers * size)
    barrier, answers = context.Barrier(workers), context.Queue()
    processes = [
        context.Process(target=_work, args=(work, folder, k, workers, sums, barrier, answers))
        for k in range(workers)
    ]
    for process in processes:
        process.start()
    found = sorted((answers.get(timeout=600) for _ in processes), key=lambda answer: answer[0])
    for process in processes:
        process.join()
    clock.ticks += found[0][1]
    return found[0][3], np.max([seconds for _, _, seconds, _ in found], axis=0).tolist()


def main() -> None:
    """Run the work and say how long its rounds took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    os.environ.update(lean_environment())  # for the processes to come
    clock = Clock()
    with data_folder(args) as folder:
        parameters, seconds = run_processes(work_of(args), folder, clock, args.workers)
    conclude(args, clock, parameters, seconds)


if __name__ == "__main__":
    main()
