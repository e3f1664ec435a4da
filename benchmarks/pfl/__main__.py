"""pfl-research at its best settings, run by the interpreter of its own environment.

    make .venv-pfl
    .venv-pfl/bin/python -m benchmarks.pfl --processes 2 --clients 1000 --cohort 100

Its `SimulatedBackend` and `FederatedAveraging` on its PyTorch model, weighted by datapoints. Data
are tensors, one client's normalised at once; no evaluation, no callback but a clock, no metrics to
the platform; images in `channels_last`, as ours (`--layout contiguous` for torch's own). Several
processes find each other by pfl's own environment variables and sum with gloo, which spares the
start-up and the memory of a launcher.

Not used: pfl's sampler that spreads clients over processes by size. Cohorts of 100 whose sizes
differ by a factor of two are uneven by about 2 % without it, and it costs a process. `--compiled`
is torch.compile, which takes longer to start and was no faster.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks.work import (
    BATCH_SIZE,
    LEARNING_RATE,
    Clock,
    Federation,
    Parameters,
    Work,
    arguments,
    batches_of,
    cohort_of,
    command_line,
    conclude,
    data_folder,
    initial_model,
    parameters_of,
    read_data,
    tensors_of,
    work_of,
)

RANK, ADDRESSES = "PFL_WORKER_RANK", "PFL_WORKER_ADDRESSES"
CohortMember = tuple[int, int]
"""(round, client) is what pfl gets as user id: a client's order of examples is the round's."""


def federated_dataset(work: Work, federation: Federation) -> object:
    """Make pfl's data set of data sets, which gives the members of each round's cohort in turn."""
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler

    members = [(r, k) for r in range(1, work.rounds + 1) for k in cohort_of(work, r)]

    def dataset_of(member: CohortMember) -> Dataset:
        indices = np.concatenate(list(batches_of(federation, *member)))
        inputs, labels = tensors_of(federation.dataset, indices)
        return Dataset([inputs, labels])

    return FederatedDataset(dataset_of, get_user_sampler("minimize_reuse", members))


def run(
    work: Work, folder: Path, clock: Clock, *, channels_last: bool, compiled: bool
) -> Parameters:
    """Run pfl's federated averaging in this process, alone or as one of several.

    Args:
        work: What to do.
        folder: Where the data is.
        clock: Ticks at the start of every round and at the end of the last.
        channels_last: Layout of images' kernels.
        compiled: Let pfl compile the model.

    Returns:
        The model's parameters after the last round.
    """
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByDatapoints
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    class Ticks(TrainingProcessCallback):
        def on_train_begin(self, *, model: PyTorchModel) -> Metrics:
            clock()
            return Metrics()

        def after_central_iteration(
            self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
        ) -> tuple[bool, Metrics]:
            clock()
            return False, Metrics()

    torch.set_num_threads(1)
    asyncio.set_event_loop(asyncio.new_event_loop())  # pfl expects one
    network = initial_model(work, channels_last=channels_last)
    network.loss = lambda inputs, labels: cross_entropy(model.pytorch_model(inputs), labels)
    network.metrics = lambda inputs, labels: {}  # asked in the first round
    model = PyTorchModel(
        model=network,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        use_torch_compile=compiled,
    )
    data = federated_dataset(work, read_data(folder))
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=work.rounds,
            evaluation_frequency=work.rounds,
            train_cohort_size=work.cohort,
            val_cohort_size=0,
        ),
        SimulatedBackend(data, data, postprocessors=[WeightByDatapoints()]),
        model,
        NNTrainHyperParams(
            local_batch_size=BATCH_SIZE, local_num_epochs=1, local_learning_rate=LEARNING_RATE
        ),
        callbacks=[Ticks()],
        send_metrics_to_platform=False,
    )
    return parameters_of(network)


def start_others(args: argparse.Namespace, folder: Path) -> list[subprocess.Popen]:
    """Start the other processes, and tell this one and them of each other."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    os.environ[ADDRESSES] = ",".join([address] * args.processes)
    os.environ[RANK] = "0"
    command = [sys.executable, "-m", "benchmarks.pfl", *command_line(work_of(args))]
    command += ["--layout", args.layout, "--data", str(folder)]
    command += ["--compiled"] if args.compiled else []
    return [
        subprocess.Popen(command, env={**os.environ, RANK: str(rank)}, stdout=subprocess.DEVNULL)
        for rank in range(1, args.processes)
    ]


def main() -> None:
    """Run the work and say how long its rounds took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--layout", choices=("channels_last", "contiguous"), default="channels_last"
    )
    parser.add_argument("--compiled", action="store_true", help="torch.compile")
    args = parser.parse_args()
    clock = Clock()
    with data_folder(args) as folder:
        others = start_others(args, folder) if args.processes > 1 else []
        parameters = run(
            work_of(args),
            folder,
            clock,
            channels_last=args.layout == "channels_last",
            compiled=args.compiled,
        )
        for other in others:
            if other.wait(timeout=60):
                raise SystemExit(f"another process of pfl's ended with {other.returncode}")
    conclude(args, clock, parameters)
    # On a busy machine torch's own threads now and then abort an interpreter that ends as usual
    # while the other process is gone ("terminate called without an active exception").
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
