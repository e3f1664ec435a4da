"""Seconds per round of federated averaging: a plain loop, ours, and Flower's engine.

The same work everywhere: N clients with 75 examples of 28x28, C sampled a round, one local epoch of
plain SGD in batches of 32, no evaluation. `python -m benchmarks.rounds` runs each system in a
process of its own, checks that all end in the same parameters, and prints a table; the first round
is not counted (start-up), the median of the others is.

    python -m benchmarks.rounds --clients 100 --cohort 10 --rounds 6
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

EXAMPLES = 75  # per client: three batches, the last one short
SYSTEMS = ("plain loop", "ours inline", "ours ray 1", "ours ray 2", "flower ray 2")


def federation(num_clients: int) -> tuple[Any, Any]:
    """Build the clients and the student; imports are here so that `--help` is quick."""
    import torch

    from clients.app import SimulatedClients
    from clients.architectures import build
    from clients.data import Dataset, Splits
    from clients.models import cnn
    from clients.seeding import Purpose, generator
    from clients.training import train

    rng = np.random.default_rng(0)
    total = num_clients * EXAMPLES
    images = rng.integers(0, 256, (total, 1, 28, 28), dtype=np.uint8)
    data = Dataset("noise", images, rng.integers(0, 10, total), 10, 1 / 255, (0.5,), (0.3,))
    parts = [np.arange(k * EXAMPLES, (k + 1) * EXAMPLES) for k in range(num_clients)]
    model = partial(cnn, channels=(16, 32), hidden=64)
    trainer = partial(train, epochs=1, batch_size=32, optimizer=partial(torch.optim.SGD, lr=0.05))
    clients = SimulatedClients(
        Splits(data, data, data), parts, ["cnn"] * num_clients, {"cnn": model}, model, trainer, 0
    )
    return clients, build(model, (1, 28, 28), 10, generator(0, Purpose.STUDENT))


def cohort_of(server_round: int, num_clients: int, cohort: int) -> list[int]:
    """Draw the same clients for every system."""
    rng = np.random.default_rng((server_round, 1))
    return sorted(int(k) for k in rng.choice(num_clients, cohort, replace=False))


def fixed_cohort(num_clients: int, cohort: int, tick: Callable[[], None]) -> Any:
    """Make Flower's FedAvg, with its sampling replaced by `cohort_of` and a clock."""
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.serverapp.strategy import FedAvg

    nodes: dict[int, int] = {}  # Flower's ids are random: ask each node once which client it is

    class Fixed(FedAvg):
        def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
            while len(nodes) < num_clients:
                asked = [Message(RecordDict(), node, "query") for node in grid.get_node_ids()]
                for reply in grid.send_and_receive(asked):
                    client = reply.content.metric_records["metrics"]["client"]
                    nodes[client] = reply.metadata.src_node_id
            tick()
            content = RecordDict(
                {"arrays": arrays, "config": ConfigRecord({"server-round": server_round})}
            )
            chosen = cohort_of(server_round, num_clients, cohort)
            return [Message(content, nodes[k], "train") for k in chosen]

    return Fixed(fraction_evaluate=0.0)


def say_who(message: Any, context: Any) -> Any:
    """Answer a query with the client's id."""
    from flwr.app import Message, MetricRecord, RecordDict

    who = MetricRecord({"client": int(context.node_config["partition-id"])})
    return Message(RecordDict({"metrics": who}), reply_to=message)


def run_plain(args: argparse.Namespace, tick: Callable[[], None]) -> dict[str, Any]:
    """Train one client after the other and average: what a short script does."""
    import torch

    from clients.architectures import load_parameters, parameters_of
    from clients.losses import cross_entropy
    from clients.seeding import Purpose, generator

    torch.set_num_threads(1)
    clients, student = federation(args.clients)
    current = parameters_of(student)
    for server_round in range(1, args.rounds + 1):
        tick()
        total = {name: np.zeros_like(value) for name, value in current.items()}
        for k in cohort_of(server_round, args.clients, args.cohort):
            load_parameters(student, current)
            ids = clients.partitions[k]
            labels = torch.from_numpy(clients.splits.private.labels[ids])
            rng = generator(0, Purpose.LOCAL_TRAINING, server_round, k)
            clients.train(student, clients.splits.private, ids, labels, cross_entropy, rng)
            for name, value in parameters_of(student).items():
                total[name] += value / args.cohort
        current = total
    tick()
    return current


def run_ours(args: argparse.Namespace, tick: Callable[[], None], workers: int) -> dict[str, Any]:
    """Run our round loop; `workers` 0 = inline."""
    from clients.architectures import parameters_of
    from clients.arrays import read_arrays, write_arrays
    from clients.screening import fault_of
    from sim.grid import PoolGrid
    from sim.pool import InlinePool
    from sim.ray_pool import RayPool
    from sim.rounds import run_rounds

    clients, student = federation(args.clients)
    app = clients.app()
    app.query()(say_who)
    pool = RayPool(app, 0, workers) if workers else InlinePool(app, 0)
    grid = PoolGrid(pool, clients.architectures, fault_of)
    arrays = run_rounds(
        fixed_cohort(args.clients, args.cohort, tick),
        grid,
        write_arrays(parameters_of(student)),
        rounds=args.rounds,
        seed=0,
        evaluate=lambda arrays: {},
        report=lambda report: None,
    )
    tick()
    pool.close()
    return read_arrays(arrays)


def run_flower(args: argparse.Namespace, tick: Callable[[], None]) -> dict[str, Any]:
    """Run Flower's simulation engine, one CPU a client, two at a time."""
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    from clients.architectures import parameters_of
    from clients.arrays import read_arrays, write_arrays

    clients, student = federation(args.clients)
    found: dict[str, Any] = {}
    app = clients.app()
    app.query()(say_who)
    server = ServerApp()

    @server.main()
    def main(grid: Any, context: Any) -> None:
        strategy = fixed_cohort(args.clients, args.cohort, tick)
        initial = write_arrays(parameters_of(student))
        found.update(read_arrays(strategy.start(grid, initial, num_rounds=args.rounds).arrays))
        tick()

    resources = {"client_resources": {"num_cpus": 1}, "init_args": {"num_cpus": 2}}
    run_simulation(server, app, args.clients, backend_config=resources)
    return found


def measure(system: str, args: argparse.Namespace) -> None:
    """Run one system here; print its seconds per round and final parameters."""
    os.environ["OMP_NUM_THREADS"] = "1"
    ticks: list[float] = []
    tick = lambda: ticks.append(time.perf_counter())  # noqa: E731
    began = time.perf_counter()
    kind, *rest = system.split(" ")
    if kind == "plain":
        found = run_plain(args, tick)
    elif kind == "ours":
        found = run_ours(args, tick, int(rest[-1]) if rest[0] == "ray" else 0)
    else:
        found = run_flower(args, tick)
    rounds = np.diff(ticks).tolist()
    flat = np.concatenate([found[name].ravel() for name in sorted(found)]).tolist()
    print("MEASURED", json.dumps({"start_s": ticks[0] - began, "rounds_s": rounds, "flat": flat}))


def main() -> None:
    """Run every system and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--cohort", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--system", choices=SYSTEMS, help="run this one here, for a profiler")
    args = parser.parse_args()
    if args.system:
        measure(args.system, args)
        return
    print(f"CNN, N={args.clients}, C={args.cohort}: median of {args.rounds - 1} rounds\n")
    print("| system | start s | s per round | ratio to the plain loop | parameters apart |")
    print("|---|---|---|---|---|")
    reference: dict[str, Any] = {}
    for system in SYSTEMS:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.rounds", *sys.argv[1:], "--system", system],
            capture_output=True,
            text=True,
            check=True,
        )
        found = json.loads(done.stdout.rsplit("MEASURED", 1)[1])
        found["s"] = statistics.median(found["rounds_s"][1:])
        reference = reference or found
        apart = np.linalg.norm(np.subtract(found["flat"], reference["flat"]))
        apart /= np.linalg.norm(reference["flat"])
        assert apart < 1e-4, f"{system} computes something else: {apart} apart"
        ratio = found["s"] / reference["s"]
        print(
            f"| {system} | {found['start_s']:.1f} | {found['s']:.3f} | {ratio:.2f} | {apart:.0e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
