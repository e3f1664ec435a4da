"""Ours: the round loop, averaging, and our clients, on a pool.

python -m benchmarks.ours --workers 2 --clients 1000 --cohort 100    # Ray
python -m benchmarks.ours --workers 0 --clients 1000 --cohort 100    # inline
python -m benchmarks.ours --alone     # clients one at a time, never in one batched step
python -m benchmarks.ours --fedavg    # Flower's FedAvg as it is: every answer to the driver

Like run.py it starts Ray first and imports torch meanwhile.
"""

import argparse
import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.work import Clock, Parameters, Work

GROUP_SIZES = {"cnn": 25, "mlp": 50, "lr": 50}
"""Clients that a worker gets at once; `python -m benchmarks.groups` says what larger ones bring."""


def run(
    work: "Work",
    folder: Path,
    clock: "Clock",
    pool: Any,
    group_size: int,
    *,
    together: bool = True,
    fold: bool = True,
) -> "Parameters":
    """Run a federation; return the final parameters.

    Args:
        work: What to do.
        folder: Where the data is.
        clock: Ticks at the start of every round and at the end of the last.
        pool: Of Ray; None = everything in this process.
        group_size: Clients that a worker gets at once.
        together: Whether they may be trained in one batched step.
        fold: Whether workers send means of their clients' answers, or each answer.

    Returns:
        The global model's parameters after the last round.
    """
    import torch

    from benchmarks.strategy import FixedCohort, FoldedCohort
    from benchmarks.work import (
        BATCH_SIZE,
        LEARNING_RATE,
        SEED,
        initial_model,
        model_function,
        parameters_of,
        read_data,
    )
    from clients.app import SimulatedApp
    from clients.data import Splits
    from clients.messages.arrays import read_arrays, write_arrays
    from clients.messages.requests import node_id_of
    from clients.population.clients import SimulatedClients
    from clients.training.loop import train
    from sim.engine.grid import PoolGrid
    from sim.engine.rounds import run_rounds
    from sim.workers.pools import InlinePool

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
        together,
    )
    pool = pool or InlinePool(SEED)
    pool.load(SimulatedApp(clients))
    nodes = [node_id_of(k) for k in range(work.clients)]
    strategy = (FoldedCohort if fold else FixedCohort)(
        work, clock, lambda grid: nodes, name_client=False
    )
    grid = PoolGrid(pool, clients.architectures, group_size=group_size, cost=clients.costs())
    arrays = run_rounds(
        strategy,
        grid,
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
    early = argparse.ArgumentParser(add_help=False)
    early.add_argument("--workers", type=int, default=2, help="of Ray; 0 = inline")
    pool = started(early.parse_known_args()[0].workers)
    from benchmarks.work import Clock, arguments, conclude, data_folder, work_of

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], parents=[early])
    arguments(parser)
    parser.add_argument("--group-size", type=int, help=f"by default of {GROUP_SIZES}")
    parser.add_argument("--alone", action="store_true", help="no batched steps")
    parser.add_argument("--fedavg", action="store_true", help="no partial means")
    args = parser.parse_args()
    clock = Clock()
    with data_folder(args) as folder:
        size = args.group_size or GROUP_SIZES[args.model]
        options = {"together": not args.alone, "fold": not args.fedavg}
        parameters = run(work_of(args), folder, clock, pool, size, **options)
        conclude(args, clock, parameters)


def started(workers: int) -> Any:
    """Begin to start a pool of Ray workers, for the seed of `benchmarks.work`; None for 0."""
    if not workers:
        return None
    from sim.workers.ray_pool import RayPool

    return RayPool(0, workers)


if __name__ == "__main__":
    main()
