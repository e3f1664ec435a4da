"""Idle rounds: clients that return at once, so that only the engine is left, at growing population.

C of N clients are averaged; each returns the payload that it was sent. A round's seconds by N say
what a client of the population costs, by C what a message costs. Driver memory is the
resident set of the process that runs the rounds, after the last one. Our averaging draws its cohort
without listing the population; the rows named "fedavg" and Flower's have Flower's own FedAvg,
unmodified, which lists it.

    python -m benchmarks.idle                                  # ours to 1,000,000, Flower to 10,000
    python -m benchmarks.idle --systems ours-inline --populations 1000,1000000 --payload 114314
"""

import argparse
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
SYSTEMS = ("ours-inline", "ours-ray-2", "ours-ray-2-fedavg", "flower")
GROUP_SIZE = 10
FLOWER_MOST = 10_000
"""Flower's largest population here: beyond it a round takes half a minute and more."""


def sampling_fedavg(population: int, cohort: int, tick: Callable[[], None]) -> Any:
    """Make FedAvg that samples `cohort` clients, as its users configure it, with a clock."""
    from flwr.serverapp.strategy import FedAvg

    class Ticking(FedAvg):
        def configure_train(self, *args: Any) -> Iterable[Any]:
            tick()
            return super().configure_train(*args)

    return Ticking(
        fraction_train=cohort / population,
        min_train_nodes=cohort,
        min_available_nodes=population,
        fraction_evaluate=0.0,
    )


def folding_average(population: int, cohort: int, tick: Callable[[], None]) -> Any:
    """Make our averaging that samples `cohort` clients, with a clock."""
    from strategies.server.averaging import Averaging

    class Ticking(Averaging):
        def configure_train(self, *args: Any) -> Iterable[Any]:
            tick()
            return super().configure_train(*args)

    return Ticking(seed=0, fraction_train=cohort / population, fraction_evaluate=0.0)


def run_ours(
    args: argparse.Namespace, arrays: Any, tick: Callable[[], None], after: Callable[[], None]
) -> None:
    """Run idle rounds on one of our pools."""
    from benchmarks.idle_client import app
    from clients.population.architectures import assign_architectures
    from sim.engine.grid import PoolGrid
    from sim.engine.rounds import run_rounds
    from sim.workers.pools import InlinePool

    if args.system == "ours-inline":
        pool = InlinePool(0)
    else:
        from sim.workers.ray_pool import RayPool

        pool = RayPool(0, 2)
    pool.load(app)
    average = sampling_fedavg if args.system.endswith("fedavg") else folding_average
    kinds = assign_architectures({"idle": 1.0}, args.population, np.random.default_rng(0))
    run_rounds(
        average(args.population, args.cohort, tick),
        PoolGrid(pool, kinds, group_size=GROUP_SIZE),
        arrays,
        rounds=args.rounds,
        seed=0,
        evaluate=lambda arrays: {},
        report=lambda report: None,
    )
    after()
    pool.close()


def run_flower(
    args: argparse.Namespace, arrays: Any, tick: Callable[[], None], after: Callable[[], None]
) -> None:
    """Run idle rounds on Flower's simulation engine, two workers."""
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    from benchmarks.flower import all_nodes, resources
    from benchmarks.idle_client import app

    server = ServerApp()

    @server.main()
    def main(grid: Any, context: Any) -> None:
        all_nodes(grid, args.population)  # else FedAvg looks for them once a second
        strategy = sampling_fedavg(args.population, args.cohort, tick)
        strategy.start(grid, arrays, num_rounds=args.rounds)
        after()

    run_simulation(server, app, args.population, backend_config=resources(2))


def resident_bytes() -> int:
    """Return the resident set size of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure(args: argparse.Namespace) -> None:
    """Run one system at one population here, and print what was found."""
    import flwr.serverapp  # sets its logger up, which is then made quiet
    from flwr.app import Array, ArrayRecord

    logging.getLogger("flwr").setLevel(logging.ERROR)
    assert flwr.serverapp is not None
    ticks: list[float] = []
    memory: list[int] = []
    arrays = ArrayRecord({"payload": Array(np.zeros(args.payload, np.float32))})

    def tick() -> None:
        ticks.append(time.perf_counter())

    def after() -> None:
        tick()
        memory.append(resident_bytes())

    (run_flower if args.system == "flower" else run_ours)(args, arrays, tick, after)
    found = {"seconds": np.diff(ticks).tolist(), "driver_bytes": memory[0]}
    print("MEASURED", json.dumps(found))


def row(args: argparse.Namespace, system: str, population: int) -> str:
    """Measure in a process of its own; return a line of the table."""
    command = [sys.executable, "-m", "benchmarks.idle", "--system", system]
    for name in ("cohort", "rounds", "payload"):
        command += [f"--{name}", str(getattr(args, name))]
    done = subprocess.run(
        [*command, "--population", str(population)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=args.timeout,
    )
    if done.returncode or "MEASURED" not in done.stdout:
        raise RuntimeError(f"{system} at N={population} failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.rsplit("MEASURED", 1)[1])
    seconds = statistics.median(found["seconds"][1:])
    return (
        f"| {system} | {population:,} | {1e3 * seconds:.1f} | {1e3 * seconds / args.cohort:.3f} "
        f"| {found['driver_bytes'] / 1e6:.0f} |"
    )


def main() -> None:
    """Run every system at every population and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="separated by commas")
    parser.add_argument("--populations", default="1000,10000,100000,1000000")
    parser.add_argument("--cohort", type=int, default=100, metavar="C")
    parser.add_argument("--rounds", type=int, default=6, help="the first is not counted")
    parser.add_argument("--payload", type=int, default=1, help="float32 numbers each way")
    parser.add_argument("--timeout", type=int, default=600, metavar="S", help="of one run")
    parser.add_argument("--system", choices=SYSTEMS, help="run this one here, for a profiler")
    parser.add_argument("--population", type=int, default=1000, metavar="N", help="for --system")
    args = parser.parse_args()
    if args.rounds < 2:
        raise SystemExit(f"--rounds {args.rounds}: expected at least 2")
    if args.system:
        measure(args)
        return
    from benchmarks.results import heading  # its imports belong to no system's memory

    cores = len(os.sched_getaffinity(0))
    print(
        f"{heading()}\n\n"
        f"idle clients, C={args.cohort}, payload {4 * args.payload:,} bytes each way, median of "
        f"{args.rounds - 1} rounds; {cores} cores, Python {platform.python_version()}\n\n"
        "| system | N | ms per round | ms per client and message pair | driver MB |\n"
        "|---|---|---|---|---|"
    )
    for population in map(int, args.populations.split(",")):
        for system in args.systems.split(","):
            if system != "flower" or population <= FLOWER_MOST:
                print(row(args, system, population), flush=True)


if __name__ == "__main__":
    main()
