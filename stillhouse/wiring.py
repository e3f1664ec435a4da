"""From the config to what a run is built of: data, clients, strategy, and what it is given.

With run.py the only file that knows clients/, strategies/ and sim/; nothing below them sees the
config.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from conf.building import instantiate, pairs
from conf.error_lines import BUILDING, explained
from conf.ranges import check_ranges
from conf.schema import check_keys, check_targets
from conf.tracking import tracking_options
from conf.unsupported_strategies import check_strategy
from sim.checkpoint.early_stop import EarlyStop

if TYPE_CHECKING:
    from torch.nn import Module

    from clients.data import Splits
    from clients.population.clients import SimulatedClients
    from sim.tracking.pending_tracker import Pending
    from sim.workers.pools import Pool


def federation(config: DictConfig, early: EarlyStop) -> "tuple[SimulatedClients, Any]":
    """Draw the clients and build the strategy: what can be known before anything is run."""
    from clients.data import described

    splits = load_splits(config)
    print(described(splits), flush=True)
    clients = populate(config, splits)
    early.require_named(_measured_of_student(clients), "student/")
    return clients, build_strategy(config, clients)


def _measured_of_student(clients: "SimulatedClients") -> list[str]:
    """List the tags of what is measured of the student in each round that is evaluated."""
    import numpy as np
    import torch

    test = clients.splits.test
    rows = torch.zeros(2 * test.task.sites, test.task.num_classes)
    labels = np.zeros_like(test.labels[:2])  # whatever may be unlabelled in the first rows
    return [f"student/{name}" for name in test.task.measures(rows, labels)]


def check(config: DictConfig) -> str:
    """Do with a config what a run does before its first round; nothing is written.

    Args:
        config: The composed config.

    Returns:
        Who takes part, and estimates of the seconds and bytes.

    Raises:
        Stopped: The config cannot be run.
    """
    with explained(*BUILDING, config=config):
        check_keys_and_values(config)
        check_plugins(config)
        from clients.population.drawing import draw_student
        from sim.tracking.pending_tracker import Pending
        from sim.workers.pools import InlinePool
        from strategies.server.estimated_run import estimate

        early = EarlyStop(**config.stop)
        clients, strategy = federation(config, early)
        tracking_options(config, clients, begins=True)
        pool, student = InlinePool(config.seed), draw_student(clients, config.student_device)
        complete_strategy(config, strategy, pool, clients, student, Pending())  # tries its rules
        return estimate(strategy, clients, config.rounds)


def described_models(config: DictConfig, clients: "SimulatedClients") -> dict[str, dict[str, str]]:
    """Say what each architecture is, and "", the student, for the files of their parameters."""
    from sim.tracking.model_file_header import describe, header

    nodes: Any = {"": config.student}
    nodes |= {str(name): kind.model for name, kind in config.clients.architectures.items()}
    plain: Any = {name: OmegaConf.to_container(node, resolve=True) for name, node in nodes.items()}
    return {name: header(describe(plain[name], clients.splits.test)) for name in plain}


def check_keys_and_values(config: DictConfig) -> None:
    """Refuse what can be told before Ray is started, and but for a GPU before torch is imported."""
    check_keys(config)
    check_ranges(config)
    check_targets(config, "sim")
    devices = {"student_device": config.student_device}
    if not config.sim.get("address"):  # whose machines may have others
        devices["sim.device"] = config.sim.get("device", "cpu")
    if wanted := {key: device for key, device in devices.items() if device != "cpu"}:
        from sim.workers.process_setup import require_device

        for key, device in wanted.items():
            require_device(key, device)


def check_plugins(config: DictConfig) -> None:
    """Refuse strategies that we do not run, and functions that do not fit, or want too much."""
    check_strategy(config)  # before its keys, which are those of another of Flower's
    check_targets(config)
    from clients.population.plugin_arguments import require_offered
    from strategies.aggregation.scorer_compatibility import require_pairs

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
    from strategies.server.codec_requirements import require_coded

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
    complete = completed(strategy, offered(clients, student, config.rounds) | known, made)
    require_coded(complete, clients)
    return complete
