"""Run a federation: `python run.py`, `python run.py --help`; `report --help`, `conformance --help`.

The only file that knows clients/, strategies/ and sim/; nothing below it sees the config.
"""

import atexit
import gc
import sys
import time
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from conf.building import instantiate, pairs
from conf.command_line import without_plus
from conf.composition import composition_explained, usage_errors_in_one_line
from conf.errors import Stopped
from conf.explaining import BUILDING, disk_explained, explained, tell_raised
from conf.plugin_file import plugin_in
from conf.ranges import check_ranges
from conf.resume import fingerprint, resumed_config
from conf.run_lock import claim, leave_nothing, release
from conf.schema import check_keys, check_targets, register
from conf.sweep import concluded, left_in, recorded
from conf.tracking import tracking_options
from conf.unsupported_strategies import check_strategy
from sim.checkpoint.stopping import Stop
from sim.report.command import main as write_report
from strategies.conformance.command import main as check_plugin

if TYPE_CHECKING:
    from torch.nn import Module

    from clients.data import Splits
    from clients.points import Point
    from clients.population.clients import SimulatedClients
    from sim.tracking.pending import Pending
    from sim.workers.pools import Pool

NUMBERS = ("rounds", "evaluate_every", "quorum", "checkpoint_every", "student_threads")

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """Run the federation that the command line describes."""
    for source in HydraConfig.get().runtime.config_sources:
        if source.provider == "command-line":  # a user's --config-dir may hold rules beside YAML
            sys.path.insert(1, source.path)  # after our own, which a `strategies.py` would hide
    folder = Path(config.resume or HydraConfig.get().runtime.output_dir).resolve()
    stop, sweeps = Stop(), HydraConfig.get().mode is RunMode.MULTIRUN
    kept = recorded(folder, config) if sweeps else nullcontext()
    try:
        with kept, stop.listening(folder), disk_explained(folder):
            with explained(*BUILDING):
                if resume := config.resume is not None:
                    config = resumed_config(config, HydraConfig.get().overrides.task)
                claim(folder, begun=resume or sweeps)
                if sweeps and not resume:
                    left = left_in(folder, config)
                    if left == "finished":
                        return print(f"{folder}: finished already")
                    resume = left == "begun"
            federate(config, folder, resume, stop)
    except Stopped as stopped:
        sys.exit(stopped.exit_code)
    except Exception as error:
        tell_raised(error, config)
        sys.exit(1)
    finally:
        release(folder)
        if not sweeps:
            leave_nothing(Path(HydraConfig.get().runtime.output_dir))


def federate(
    config: DictConfig, folder: Path, resume: bool = False, stop: Stop | None = None
) -> dict[str, Any]:
    """Build everything, run the rounds, write the run folder.

    Args:
        config: The composed config.
        folder: The run folder; without a run yet, unless that is to be gone on with.
        resume: Whether to go on after the folder's last checkpoint.
        stop: Tells whether the run is to stop after a round; None = it is not.

    Returns:
        What `result.json` says.

    Raises:
        Stopped: The config cannot be run, or the run could not go on.
    """
    began, stop = time.perf_counter(), stop or Stop()
    with explained(*BUILDING, config=config):
        check_keys(config)
        check_ranges(config)
        check_targets(config, "sim")
        pool = instantiate(config.sim)(seed=config.seed)  # Ray, if wanted, while torch is imported
    with closing(pool):
        from clients.population.drawing import draw_student
        from sim.checkpoint.resumable_run import open_run, prepare_rounds
        from sim.checkpoint.writing import Checkpoints
        from sim.engine.rounds import ENDINGS
        from sim.tracking.pending import Pending
        from sim.tracking.run_folder import CHECKPOINT, LeavingError, conclude, write_peers
        from sim.workers.pool_choice import AutoPool
        from sim.workers.process_setup import require_device
        from strategies.server.estimated_work import estimated_work_s

        with explained(*BUILDING, config=config):
            check_targets(config)
            check_plugins(config)
            kept = fingerprint(config), config.checkpoints_kept
            checkpoints = Checkpoints(folder / CHECKPOINT, config.seed, *kept)
            done = checkpoints.load(config.rounds) if resume else None
            require_device("student_device", config.student_device)
            clients = populate(config, load_splits(config))
            strategy = build_strategy(config, clients)  # before a folder is begun
            shown = tracking_options(config, clients, begins=done is None)
            if isinstance(pool, AutoPool):
                left = range(1 if done is None else done.server_round + 1, config.rounds + 1)
                work_s = estimated_work_s(strategy, clients, left)
                pool, shown["where"] = pool.open(work_s, config.student_workers)
            student, pending = draw_student(clients, config.student_device), Pending()
            strategy = complete_strategy(config, strategy, pool, clients, student, pending)
            tracker, display, asking = open_run(folder, clients, config.rounds, done, **shown)
            pending.begin(tracker, display)
        with closing(tracker):
            try:
                with explained(*BUILDING, config=config):
                    built = pool, clients, student, strategy, tracker, display, asking, checkpoints
                    numbers = {name: config[name] for name in NUMBERS}
                    numbers |= {"group_size": config.clients.group_size}
                    run_rounds = prepare_rounds(*built, stop.asked, **numbers)
                with explained(*ENDINGS), stop.at_the_end_of_rounds():
                    parameters = run_rounds()
            finally:
                display.stop()
            tracker.write()
            said = {"seed": config.seed, "rounds": config.rounds, **tracker.totals()}
            said |= {"wall_time_s": time.perf_counter() - began}
            if leaked := clients.splits.proxy_in_test:
                said["proxy_inputs_in_test"] = leaked
            result = conclude(folder, parameters, said)
            display.result(result, str(folder))
            with explained(LeavingError):
                write_peers(folder, strategy)
    return result


def check_plugins(config: DictConfig) -> None:
    """Refuse strategies that we do not run, and functions that do not fit, or want too much."""
    from clients.population.plugins import require_offered
    from strategies.aggregation.scorer_compatibility import require_pairs

    check_strategy(config)
    require_pairs(pairs(config.strategy))
    partition, student = instantiate(config.partition), instantiate(config.student)
    require_offered(partition, student, **instantiate(config.clients))


def load_splits(config: DictConfig) -> "Splits":
    """Read the data and cut it into private, proxy and test sets."""
    from clients.data import draw_splits

    read = {n: v for n, v in instantiate(config.data).items() if n != "root"}
    return draw_splits(config.seed, **read)


def populate(config: DictConfig, splits: "Splits") -> "SimulatedClients":
    """Draw the clients, and let each of their networks be tried."""
    from clients.population.drawing import draw_clients
    from clients.population.rehearsal import rehearse

    partition, student = instantiate(config.partition), instantiate(config.student)
    about = {n: v for n, v in instantiate(config.clients).items() if n != "group_size"}
    about |= {"student": student, "rounds": config.rounds}
    about["test_examples"] = config.evaluation.examples
    clients = draw_clients(splits, config.seed, partition, **about)
    rehearse(clients, config.strategy.get("local_training", True), config.sim.get("device"))
    return clients


def build_strategy(config: DictConfig, clients: "SimulatedClients") -> Any:
    """Instantiate the strategy, and see that the rest of the config fits it."""
    from strategies.server.requirements import require_fitting

    strategy, there = instantiate(config.strategy), bool(config.topology)
    student = {"student_workers": config.student_workers, "student_threads": config.student_threads}
    about = {"topology": there, "availability": dict(config.availability), **student}
    require_fitting(strategy, clients, **about)
    return strategy


def complete_strategy(
    config: DictConfig,
    strategy: Any,
    pool: "Pool",
    clients: "SimulatedClients",
    student: "Module",
    told: "Pending",
) -> Any:
    """Give one of ours what it teaches, and with; Flower's are complete."""
    from strategies.argument_injection import completed, offered

    workers, warn = config.student_workers, told.warn
    peers = {"num_peers": len(clients.architectures), "seed": config.seed}
    made: dict[str, Any] = {
        "train_peers": lambda: pool.train_peers(warn),
        "mixing": lambda: told.topology(instantiate(config.topology)(**peers)).mixing,
        "availability": lambda: instantiate(config.availability)(**peers),
    }
    if workers > 1:
        made["distil"] = partial(pool.share_training, strategy.keywords["distil"], workers, warn)
    known = {"overlap": pool.concurrent, "report": told.view, "watch": told.graph}
    known["student_threads"] = config.student_threads
    return completed(strategy, offered(clients, student, config.rounds) | known, made)


def engine_points() -> "tuple[Point, ...]":
    """Return the points of the engine: probes of rounds, graphs, their weights, strategies."""
    from sim.analysis.probes.conformance import ROUND_PROBE
    from sim.checkpoint.trial_run import begun, made_for, trial_run
    from sim.topology.conformance import MIXING, TOPOLOGY
    from sim.workers.process_setup import assume_task_identity
    from strategies.conformance.of_strategies import Engine, strategy_point

    assume_task_identity(run_id=1)  # so that messages can be made up here
    return ROUND_PROBE, TOPOLOGY, MIXING, strategy_point(Engine(begun, trial_run, made_for))


if __name__ == "__main__":
    # All is closed by then; else the interpreter's end looks at a million objects, 1 to 2 s.
    atexit.register(gc.freeze)
    usage_errors_in_one_line()
    if sys.argv[1:2] == ["report"]:
        sys.exit(write_report(sys.argv[2:]))
    if sys.argv[1:2] == ["conformance"]:
        sys.exit(check_plugin(sys.argv[2:], engine_points, plugin_in))
    sys.argv[1:] = without_plus(sys.argv[1:])
    with composition_explained(sys.argv[1:]):
        main()
    sys.exit(concluded(write_report))
