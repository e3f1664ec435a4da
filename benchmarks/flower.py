"""Flower's simulation engine at its best: two workers of one thread, nothing logged or evaluated.

`client_resources` num_cpus=1 on a Ray of as many CPUs as workers, no dashboard, no worker output on
the driver, logging at ERROR, telemetry off. The client keeps model and data in its worker
(`flower_client.py`), which is more than Flower's examples do. `--step plain` trains as Flower's
tutorials do (`torch.optim`), `--step lean` with the same step as the floor's, so that only the
engines differ.

    python -m benchmarks.flower --step lean --clients 1000 --cohort 100
"""

import argparse
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.work import (
    Clock,
    Parameters,
    Work,
    arguments,
    conclude,
    data_folder,
    initial_model,
    work_of,
)


def resources(workers: int) -> dict[str, Any]:
    """Return the simulation engine's settings: one CPU a client, and quiet."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    return {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "init_args": {"num_cpus": workers, **quiet},
    }


def all_nodes(grid: Any, number: int) -> Sequence[int]:
    """Return the nodes in the order of their ids; at the start, wait until all are registered."""
    while len(found := sorted(grid.get_node_ids())) < number:
        time.sleep(0.01)
    return found


def run(work: Work, folder: Path, clock: Clock, workers: int, step: str) -> Parameters:
    """Run Flower's simulation; return the final parameters.

    Args:
        work: What to do.
        folder: Where the data is.
        clock: Ticks at the start of every round and at the end of the last.
        workers: Ray actors, one client each at a time.
        step: Of `flower_client.STEPS`.

    Returns:
        The global model's parameters after the last round.
    """
    from flwr.app import ArrayRecord
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    from benchmarks import flower_client
    from benchmarks.strategy import FixedCohort

    logging.getLogger("flwr").setLevel(logging.ERROR)
    os.environ[flower_client.FOLDER] = str(folder)
    os.environ[flower_client.MODEL] = work.model
    os.environ[flower_client.SMOOTH] = str(work.smooth)
    os.environ[flower_client.STEP] = step
    found: Parameters = {}
    nodes: list[int] = []
    server = ServerApp()

    def nodes_of(grid: Any) -> list[int]:
        if not nodes:
            nodes.extend(all_nodes(grid, work.clients))
        return nodes

    @server.main()
    def main(grid: Any, context: Any) -> None:
        strategy = FixedCohort(work, clock, nodes_of, name_client=True)
        initial = ArrayRecord(initial_model(work, channels_last=False).state_dict())
        arrays = strategy.start(grid, initial, num_rounds=work.rounds).arrays
        clock()
        found.update(arrays.to_torch_state_dict())

    run_simulation(server, flower_client.app, work.clients, backend_config=resources(workers))
    return {name: value.numpy() for name, value in found.items()}


def main() -> None:
    """Run the work and say how long its rounds took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--step", choices=("plain", "lean"), default="lean")
    args = parser.parse_args()
    clock = Clock()
    with data_folder(args) as folder:
        found = run(work_of(args), folder, clock, args.workers, args.step)
    conclude(args, clock, found)


if __name__ == "__main__":
    main()
