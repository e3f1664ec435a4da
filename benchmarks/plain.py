"""The plain loop: one client after the other in one process, as a short PyTorch script does it.

`torch.optim.SGD`, `zero_grad`, `backward`, `step`; images in torch's default layout; one model,
loaded anew for each client; the mean summed up as clients finish. Threads are torch's own.

    python -m benchmarks.plain --threads 2 --clients 1000 --cohort 100
"""

import argparse
from collections.abc import Callable

import torch
from torch import nn
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
    parameters_of,
    read_data,
    tensors_of,
    work_of,
)


def train(model: nn.Module, federation: Federation, server_round: int, client: int) -> None:
    """Train a client's model for one epoch, the way the tutorials do."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    for indices in batches_of(federation, server_round, client):
        inputs, labels = tensors_of(federation.dataset, indices)
        optimizer.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        optimizer.step()


def run(work: Work, federation: Federation, tick: Callable[[], None]) -> Parameters:
    """Train and average; return the final parameters."""
    model = initial_model(work, channels_last=False)
    current = {name: value.clone() for name, value in model.state_dict().items()}
    for server_round in range(1, work.rounds + 1):
        tick()
        cohort = cohort_of(work, server_round)
        examples = sum(len(federation.partitions[k]) for k in cohort)
        total = {name: torch.zeros_like(value) for name, value in current.items()}
        for k in cohort:
            model.load_state_dict(current)
            train(model, federation, server_round, k)
            weight = len(federation.partitions[k]) / examples
            for name, value in model.state_dict().items():
                total[name] += weight * value
        current = total
    tick()
    model.load_state_dict(current)
    return parameters_of(model)


def main() -> None:
    """Run the work and say how long its rounds took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = Clock()
    with data_folder(args) as folder:
        conclude(args, clock, run(work_of(args), read_data(folder), clock))


if __name__ == "__main__":
    main()
