"""Ours: the round loop, Flower's FedAvg, and our clients, on a pool.

python -m benchmarks.ours --workers 2 --clients 1000 --cohort 100    # Ray
python -m benchmarks.ours --workers 0 --clients 1000 --cohort 100    # inline
"""

import argparse
import logging
from functools import partial
from pathlib import Path

from benchmarks.work import (
    BATCH_SIZE,
    LEARNING_RATE,
    SEED,
    Clock,
    Parameters,
    Work,
    arguments,
    conclude,
    data_folder,
    initial_model,
    model_function,
    parameters_of,
    read_data,
    work_of,
)


def run(work: Work, folder: Path, clock: Clock, workers: int) -> Parameters:
    """Run a federation; return the final parameters.

    Args:
        work: What to do.
        folder: Where the data is.
        clock: Ticks at the start of every round and at the end of the last.
        workers: Ray workers; 0 = everything in this process.

    Returns:
        The global model's parameters after the last round.
    """
    import torch

    from benchmarks.strategy import FixedCohort
    from clients.app import SimulatedClients
    from clients.data import Splits
    from clients.messages import node_id_of, read_arrays, write_arrays
    from clients.screening import fault_of
    from clients.training import train
    from sim.grid import PoolGrid
    from sim.pool import InlinePool
    from sim.rounds import run_rounds

    logging.getLogger("flwr").setLevel(logging.ERROR)  # after flwr is imported, which sets it
    federation, model = read_data(folder), model_function(work)
    optimizer = partial(torch.optim.SGD, lr=LEARNING_RATE)
    data = federation.dataset
    clients = SimulatedClients(
        Splits(data, data, data),
        federation.partitions,
        [work.model] * work.clients,
        {work.model: model},
        model,
        partial(train, epochs=1, batch_size=BATCH_SIZE, optimizer=optimizer),
        SEED,
    )
    if workers:
        from sim.ray_pool import RayPool

        pool = RayPool(clients.app(), SEED, workers)
    else:
        pool = InlinePool(clients.app(), SEED)
    nodes = [node_id_of(k) for k in range(work.clients)]
    arrays = run_rounds(
        FixedCohort(work, clock, lambda grid: nodes, name_client=False),
        PoolGrid(pool, clients.architectures, fault_of),
        write_arrays(parameters_of(initial_model(work, channels_last=True))),
        rounds=work.rounds,
        seed=SEED,
        evaluate=lambda arrays: {},
        report=lambda report: None,
    )
    clock()
    pool.close()
    return read_arrays(arrays)


def main() -> None:
    """Run the work and say how long its rounds took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser)
    parser.add_argument("--workers", type=int, default=2, help="of Ray; 0 = inline")
    args = parser.parse_args()
    clock = Clock()
    with data_folder(args) as folder:
        conclude(args, clock, run(work_of(args), folder, clock, args.workers))


if __name__ == "__main__":
    main()
