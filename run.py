"""Run a federation: `python run.py`, `python run.py --help`, `python run.py -m seed=0,1,2`.

The only file that knows clients/, strategies/ and sim/. It turns the config into values and
objects; nothing below it sees the config.
"""

import argparse
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.resume import fingerprint, resumed_config
from conf.schema import ConfigError, check_keys, check_ranges, check_targets, explain, register

if TYPE_CHECKING:
    from torch.nn import Module

    from clients.app import SimulatedClients
    from clients.data import Splits
    from sim.checkpoints import Checkpoint, Checkpoints
    from sim.console import Display
    from sim.tracking import Tracker

register()
composed = False
"""Whether Hydra got as far as calling `main`: before that, a failure is the command line's."""


class Stopped(Exception):
    """A run that cannot begin or go on; the message is for the user."""


BUILDING = (ConfigError, InstantiationException, OmegaConfBaseException, OSError, ValueError)
"""What wrong input raises before the first round. Whatever else is raised, there or later, is a
defect, of ours or of a rule that a user brought, and keeps its traceback."""


@contextmanager
def explained(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of these kinds into a message for the user.

    Args:
        *kinds: Which errors say all that there is to say.

    Yields:
        Nothing.

    Raises:
        Stopped: Instead of the error, with its message.
    """
    try:
        yield
    except kinds as error:
        cause: BaseException = error
        while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
            cause = cause.__cause__
        if not isinstance(cause, (*kinds, TypeError)):
            raise
        raise Stopped(str(cause)) from error


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """Run the federation that the command line describes."""
    global composed
    composed = True
    for source in HydraConfig.get().runtime.config_sources:
        if source.provider == "command-line":  # a user's --config-dir may hold rules beside YAML
            sys.path.insert(0, source.path)
    folder = Path(config.resume or HydraConfig.get().runtime.output_dir).resolve()
    resume = config.resume is not None
    try:
        if resume:
            with explained(*BUILDING):
                config = resumed_config(config, HydraConfig.get().overrides.task)
        federate(config, folder, resume)
    except Stopped as stopped:
        print(f"error: {stopped}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"interrupted; what there is lies in {folder}", file=sys.stderr)
        sys.exit(130)


def federate(config: DictConfig, folder: Path, resume: bool = False) -> dict[str, Any]:
    """Build everything, run the rounds, write the run folder.

    Args:
        config: The composed config.
        folder: The run folder; it must not hold a run yet, unless that is to be gone on with.
        resume: Whether to go on after the folder's last checkpoint.

    Returns:
        The content of `result.json`.

    Raises:
        Stopped: The config cannot be run, or the run could not go on.
    """
    began = time.perf_counter()
    from sim.checkpoints import Checkpoints
    from sim.run_folder import CHECKPOINT, conclude

    with explained(*BUILDING):
        check_keys(config)
        check_ranges(config)
        check_targets(config)
        checkpoints = Checkpoints(folder / CHECKPOINT, config.seed, fingerprint(config))
        done = checkpoints.load(config.rounds) if resume else None
        splits = load_splits(config)
        clients = populate(config, splits)
        tracker, display = open_run(config, folder, clients, done)
    # Flower logs each step of its strategies; our display already tells the round.
    logging.getLogger("flwr").setLevel(logging.WARNING)
    try:
        student = run_federation(config, splits, clients, tracker, display, checkpoints)
    finally:
        display.stop()
        tracker.close()
    about = {"seed": config.seed, "rounds": config.rounds, **tracker.totals()}
    result = conclude(folder, student, about | {"wall_time_s": time.perf_counter() - began})
    display.result(result, str(folder))
    return result


def open_run(
    config: DictConfig, folder: Path, clients: "SimulatedClients", done: "Checkpoint | None"
) -> tuple["Tracker", "Display"]:
    """Write down what is to be run; return what will follow it."""
    from clients.partition import summary
    from sim.console import Display
    from sim.run_folder import begin, changed_versions
    from sim.tracking import Tracker

    private = clients.splits.private
    shape = summary(private.labels, clients.partitions, private.num_classes)
    text = OmegaConf.to_yaml(config, resolve=True)
    begin(folder, text, shape, None if done is None else done.lines)
    probes = [instantiate(probe) for probe in config.probes.values()]
    tracker = Tracker(folder, probes, text, [] if done is None else done.rows)
    display = Display(config.rounds, clients.architectures, shape)
    if done is not None:
        display.resume(done.server_round, changed_versions(done.versions))
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
    proxy = None if data.proxy_source is None else instantiate(data.proxy_source)[0]
    return split(
        train,
        test,
        proxy_share=data.proxy_share,
        proxy_source=proxy,
        limit=data.limit,
        proxy_limit=data.proxy_limit,
        rng=generator(config.seed, Purpose.SPLIT),
    )


def populate(config: DictConfig, splits: "Splits") -> "SimulatedClients":
    """Cut the private set among the clients and give each its architecture."""
    from clients.app import SimulatedClients
    from clients.population import assign_architectures
    from clients.rehearsal import rehearse
    from clients.seeding import Purpose, generator

    number, kinds = config.clients.num_clients, config.clients.architectures
    cut = instantiate(config.partition)
    partitions = cut(splits.private.labels, number, generator(config.seed, Purpose.PARTITION))
    shares = {str(name): kind.share for name, kind in kinds.items()}
    clients = SimulatedClients(
        splits=splits,
        partitions=partitions,
        architectures=assign_architectures(
            shares, number, generator(config.seed, Purpose.POPULATION)
        ),
        models={str(name): instantiate(kind.model) for name, kind in kinds.items()},
        student=instantiate(config.student),
        train=instantiate(config.clients.training),
        seed=config.seed,
    )
    rehearse({**clients.models, "student": clients.student}, splits.private)
    return clients


def run_federation(
    config: DictConfig,
    splits: "Splits",
    clients: "SimulatedClients",
    tracker: "Tracker",
    display: "Display",
    checkpoints: "Checkpoints",
) -> dict[str, Any]:
    """Run the rounds; return the final student's parameters."""
    from clients.architectures import build, load_parameters, parameters_of
    from clients.messages import read_arrays, write_arrays
    from clients.prediction import evaluate
    from clients.screening import fault_of
    from clients.seeding import Purpose, generator
    from sim.grid import PoolGrid
    from sim.rounds import QuorumLost, RoundReport, run_rounds

    with explained(*BUILDING):
        shape, num_classes = splits.private.image_shape, splits.private.num_classes
        rng = generator(config.seed, Purpose.STUDENT)
        student = build(clients.student, shape, num_classes, rng)
        strategy = build_strategy(config, splits, clients, student, tracker)
        pool = instantiate(config.sim)(app=clients.app(), seed=config.seed)

    def evaluate_student(arrays: Any) -> dict[str, float]:
        load_parameters(student, read_arrays(arrays))
        return evaluate(student, splits.test)

    def report(round_report: RoundReport) -> None:
        failures = [str(exchange) for exchange in round_report.exchanges if exchange.failure]
        display.round(tracker.round(round_report), failures[0] if failures else "")

    grid = PoolGrid(pool, clients.architectures, fault_of, display.answer)
    try:
        with explained(*BUILDING):
            begun = write_arrays(parameters_of(student))
            arrays, first_round = checkpoints.start(strategy, grid, begun)
        with explained(QuorumLost, FloatingPointError):
            arrays = run_rounds(
                strategy,
                grid,
                arrays,
                rounds=config.rounds,
                seed=config.seed,
                evaluate=evaluate_student,
                report=report,
                evaluate_every=config.evaluate_every,
                quorum=config.quorum,
                first_round=first_round,
                commit=checkpoints.after_rounds(
                    config.checkpoint_every, config.rounds, display.warn, strategy, grid, tracker
                ),
            )
    finally:
        pool.close()
    return read_arrays(arrays)


def build_strategy(
    config: DictConfig,
    splits: "Splits",
    clients: "SimulatedClients",
    student: "Module",
    tracker: "Tracker",
) -> Any:
    """Instantiate the strategy; one of ours is still to be given what it teaches, and with."""
    from clients.rehearsal import require_like

    strategy = instantiate(config.strategy)
    if not isinstance(strategy, partial):
        if type(strategy).__module__.startswith("flwr."):
            require_like(clients.student, clients.models, splits.private, type(strategy).__name__)
        return strategy
    return strategy(
        student=student,
        proxy=splits.proxy,
        test=splits.test,
        seed=config.seed,
        report=tracker.view,
    )


if __name__ == "__main__":
    try:
        main()
    except SystemExit as stop:
        flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        flags.add_argument("--config-dir", "-cd", action="append", default=[])
        given, rest = flags.parse_known_args()
        overrides = [word for word in rest if "=" in word]
        if stop.code and not composed and (hint := explain(overrides, given.config_dir)):
            print(f"hint: {hint}", file=sys.stderr)
        raise
