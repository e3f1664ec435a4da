"""Run a federation: `python run.py`, `python run.py --help`, `python run.py report --help`.

The only file that knows clients/, strategies/ and sim/; nothing below it sees the config.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from conf.building import instantiate, pairs
from conf.errors import BUILDING, Stopped, disk_explained, explained
from conf.ranges import check_ranges
from conf.resume import fingerprint, resumed_config
from conf.run_lock import claim, release
from conf.schema import check_keys, check_targets, explain_command, register
from conf.tracking import tracking_options
from conf.unsupported_strategies import check_strategy
from sim.checkpoint.stopping import Stop
from sim.report.command import main as write_report

if TYPE_CHECKING:
    from torch.nn import Module

    from clients.data import Splits
    from clients.population.clients import SimulatedClients
    from sim.checkpoint.writing import Checkpoint, Checkpoints
    from sim.tracking.console import Display
    from sim.tracking.tracker import Tracker
    from sim.workers.pools import Pool

register()
composed = False
"""Whether Hydra got as far as calling `main`: before that, a failure is the command line's."""


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """Run the federation that the command line describes."""
    global composed
    composed = True
    for source in HydraConfig.get().runtime.config_sources:
        if source.provider == "command-line":  # a user's --config-dir may hold rules beside YAML
            sys.path.insert(1, source.path)  # after our own, which a `strategies.py` would hide
    folder = Path(config.resume or HydraConfig.get().runtime.output_dir).resolve()
    stop = Stop()
    try:
        with stop.listening(folder), disk_explained(folder):
            with explained(*BUILDING):
                if resume := config.resume is not None:
                    config = resumed_config(config, HydraConfig.get().overrides.task)
                claim(folder, begun=resume)
            federate(config, folder, resume, stop)
    except Stopped as stopped:
        sys.exit(stopped.exit_code)
    finally:
        release(folder)


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
    with explained(*BUILDING):
        check_keys(config)
        check_ranges(config)
        check_targets(config, "sim")
        pool = instantiate(config.sim)(seed=config.seed)  # Ray starts while torch is imported
    try:
        from sim.checkpoint.writing import Checkpoints
        from sim.tracking.run_folder import CHECKPOINT, LeavingError, conclude, write_peers
        from strategies.aggregation.scorer_discriminator import require_pairs

        with explained(*BUILDING):
            check_targets(config)
            check_strategy(config)
            require_pairs(pairs(config.strategy))
            about = config.seed, fingerprint(config), config.checkpoints_kept
            checkpoints = Checkpoints(folder / CHECKPOINT, *about)
            done = checkpoints.load(config.rounds) if resume else None
            clients = populate(config, load_splits(config))
            tracker, display = open_run(config, folder, clients, done)
        try:
            built = pool, clients, tracker, display, checkpoints
            student, strategy = run_federation(config, *built, stop)
        finally:
            display.stop()
            tracker.close()
        totals = {"seed": config.seed, "rounds": config.rounds, **tracker.totals()}
        result = conclude(folder, student, totals | {"wall_time_s": time.perf_counter() - began})
    finally:
        pool.close()
    display.result(result, str(folder))
    with explained(LeavingError):
        write_peers(folder, strategy)
    return result


def open_run(
    config: DictConfig, folder: Path, clients: "SimulatedClients", done: "Checkpoint | None"
) -> tuple["Tracker", "Display"]:
    """Write down what is to be run; return what will follow it."""
    from clients.data import renumbered
    from clients.partition import summary
    from sim.tracking.console import Display
    from sim.tracking.run_folder import begin, changed_versions
    from sim.tracking.tracker import Tracker

    private = clients.splits.private
    shape = summary(private.labels, clients.partitions, private.num_classes)
    text = OmegaConf.to_yaml(config, resolve=True)
    probes = {str(name): instantiate(probe) for name, probe in config.probes.items()}
    options = tracking_options(config, len(clients.architectures), clients.splits, done is None)
    begin(folder, text, shape, None if done is None else done.lines)
    kept = (None, {}) if done is None else (done.clients, done.probes)
    tracker = Tracker(folder, probes, text, *kept, **options)
    display = Display(config.rounds, clients.architectures, shape)
    if note := renumbered(private):
        display.warn(note)
    if options["proxy_labels"] is None:
        display.warn("the proxy set has no labels: probes that need them are left out")
    if done is not None:
        display.resume(done.server_round, changed_versions(done.versions), done.damage)
    return tracker, display


def load_splits(config: DictConfig) -> "Splits":
    """Read the data and cut it into private, proxy and test sets."""
    from clients.data import split, subset
    from clients.seeding import Purpose, generator

    data = config.data
    train, test = instantiate(data.source)
    if data.test_limit is not None:  # a stream of its own: the other sets stay as they are
        order = generator(config.seed, Purpose.TEST_LIMIT).permutation(len(test))
        test = subset(test, order[: data.test_limit])
    return split(
        train,
        test,
        proxy_source=None if data.proxy_source is None else instantiate(data.proxy_source)[0],
        **{name: data[name] for name in ("proxy_share", "limit", "proxy_limit")},
        rng=generator(config.seed, Purpose.SPLIT),
    )


def populate(config: DictConfig, splits: "Splits") -> "SimulatedClients":
    """Cut the private set among the clients and give each its architecture."""
    from clients.population.architectures import assign_architectures
    from clients.population.clients import SimulatedClients
    from clients.population.rehearsal import rehearse
    from clients.seeding import Purpose, generator

    part, number = config.clients, config.clients.num_clients
    shares = {str(name): kind.share for name, kind in part.architectures.items()}
    drawn, cut = partial(generator, config.seed), instantiate(config.partition)
    clients = SimulatedClients(
        splits=splits,
        partitions=cut(splits.private.labels, number, drawn(Purpose.PARTITION)),
        architectures=assign_architectures(shares, number, drawn(Purpose.POPULATION)),
        models={str(name): instantiate(kind.model) for name, kind in part.architectures.items()},
        student=instantiate(config.student),
        seed=config.seed,
        together=part.together,
        **{"train": instantiate(part.training), "corrupt": instantiate(part.corruption)},
        **{n: instantiate(part[n]) for n in ("messenger", "objective", "profile")},
    )
    rehearse(clients, config.strategy.get("local_training", True), config.sim.get("device"))
    return clients


def run_federation(
    config: DictConfig,
    pool: "Pool",
    clients: "SimulatedClients",
    tracker: "Tracker",
    display: "Display",
    checkpoints: "Checkpoints",
    stop: Stop,
) -> tuple[dict[str, Any], Any]:
    """Run the rounds; return the final student's parameters and the strategy."""
    from clients.app import SimulatedApp
    from clients.messages.arrays import read_arrays, write_arrays
    from clients.models.factory import load_parameters, parameters_of
    from clients.protocols import told
    from clients.training.evaluation import evaluate
    from sim.engine.buffers import buffers_of
    from sim.engine.grid import PoolGrid
    from sim.engine.rounds import ENDINGS, RoundReport, run_rounds
    from sim.tracking.run_folder import STATES

    with explained(*BUILDING):
        student = begin_student(config, clients)
        strategy = build_strategy(config, pool, clients, student, tracker, display)
        buffers = buffers_of(student, strategy)
        pool.load(SimulatedApp(clients, told(strategy, "handlers") or ()))
    has_student = getattr(strategy, "has_student", True)

    def evaluate_student(arrays: Any) -> dict[str, float]:
        load_parameters(student, read_arrays(arrays))
        return evaluate(student, clients.splits.test) if has_student else {}

    def report(round_report: RoundReport) -> None:
        display.round(tracker.round(round_report), round_report.first_failure())

    with explained(*BUILDING):
        about = {"group_size": config.clients.group_size, "cost": clients.costs()}
        about |= {"profiles": clients.profiles, "on_note": display.warn}
        about |= {"states": pool.states(tracker.folder / STATES)}
        grid = PoolGrid(pool, clients.architectures, display.answer, **about)
        arrays, first = checkpoints.start(strategy, grid, write_arrays(parameters_of(student)))
    often = config.checkpoint_every, config.rounds
    commit = checkpoints.after_rounds(*often, display.warn, strategy, grid, tracker, stop.asked)
    calls: dict[str, Any] = {"evaluate": evaluate_student, "report": report, "watch": tracker.view}
    calls |= {"commit": commit, "stopping": stop.asked, "first_round": first, "buffers": buffers}
    with explained(*ENDINGS), stop.at_the_end_of_rounds():
        numbers = {n: config[n] for n in ("rounds", "seed", "evaluate_every", "quorum")}
        arrays = run_rounds(strategy, grid, arrays, **numbers, **calls)
    return (read_arrays(arrays) if has_student else {}), strategy


def begin_student(config: DictConfig, clients: "SimulatedClients") -> "Module":
    """Build the global student as it is before the first round."""
    from clients.models.factory import build
    from clients.seeding import Purpose, generator
    from sim.workers.process_setup import require_device

    require_device("student_device", device := config.student_device)
    private, rng = clients.splits.private, generator(config.seed, Purpose.STUDENT)
    return build(clients.student, private.image_shape, private.num_classes, rng).to(device)


def build_strategy(
    config: DictConfig,
    pool: "Pool",
    clients: "SimulatedClients",
    student: "Module",
    tracker: "Tracker",
    display: "Display",
) -> Any:
    """Instantiate the strategy; one of ours is still to be given what it teaches, and with."""
    from clients.population.rehearsal import require_like
    from strategies.argument_injection import completed, require_topology
    from strategies.server.averaging import Averaging
    from strategies.teaching.rehearsal import require_distil

    splits, strategy = clients.splits, instantiate(config.strategy)
    require_distil(strategy, workers := config.student_workers, clients.messenger is not None)
    require_topology(strategy, config.topology is not None, config.availability)
    if not isinstance(strategy, partial):
        averages = isinstance(strategy, Averaging) or type(strategy).__module__.startswith("flwr.")
        if averages and clients.messenger is None:
            require_like(clients.student, clients.models, splits.private, type(strategy).__name__)
        return strategy
    peers, warn = {"num_peers": len(clients.architectures), "seed": config.seed}, display.warn
    known = {
        **{"student": student, "student_model": clients.student, "models": clients.models},
        **{"architectures": clients.architectures, "proxy": splits.proxy, "test": splits.test},
        **{"seed": config.seed, "rounds": config.rounds, "messenger": clients.messenger},
        **{"num_clients": peers["num_peers"], "overlap": pool.concurrent},
        **{"report": tracker.view, "watch": tracker.graph},
    }
    made: dict[str, Callable[[], Any]] = {
        "train_peers": lambda: pool.train_peers(warn),
        "mixing": lambda: display.topology(instantiate(config.topology)(**peers)).mixing,
        "availability": lambda: instantiate(config.availability)(**peers),
    }
    if workers > 1:
        made["distil"] = partial(pool.share_training, strategy.keywords["distil"], workers, warn)
    return completed(strategy, known, made)


if __name__ == "__main__":
    if sys.argv[1:2] == ["report"]:
        sys.exit(write_report(sys.argv[2:]))
    try:
        main()
    except SystemExit as stop:
        if stop.code and not composed and (hint := explain_command(sys.argv[1:])):
            print(f"hint: {hint}", file=sys.stderr)
        raise
