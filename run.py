"""Run a federation: `python run.py`, `python run.py --help`; what else there is to do: stillhouse/.

With stillhouse/ the only place that knows clients/, strategies/ and sim/; nothing below them sees
the config.
"""

import logging
import sys
import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from conf.building import instantiate
from conf.error_lines import BUILDING, disk_explained, explained, tell_raised
from conf.errors import Stopped
from conf.resume import fingerprint, resumed_config
from conf.run_lock import claim, leave_nothing, release
from conf.schema import register
from conf.sweep_jobs import left_in, recorded
from conf.tracking import headline, tracking_options
from sim.checkpoint.early_stop import Each, EarlyStop
from sim.checkpoint.stop_signals import Stop
from stillhouse.wiring import (
    check_keys_and_values,
    check_plugins,
    complete_strategy,
    described_models,
    federation,
)

NUMBERS = (
    *("rounds", "evaluate_every", "quorum", "checkpoint_every", "student_threads"),
    "clients.group_size",
)
"""Of the round loop."""

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """Run the federation that the command line describes."""
    logging.getLogger("flwr").propagate = False  # it prints itself; Hydra's would do so again
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
    config: DictConfig,
    folder: Path,
    resume: bool = False,
    stop: Stop | None = None,
    callbacks: Sequence[Each] = (),
) -> dict[str, Any]:
    """Build everything, run the rounds, write the run folder.

    Args:
        config: The composed config.
        folder: The run folder; without a run yet, unless that is to be gone on with.
        resume: Whether to go on after the folder's last checkpoint.
        stop: Tells whether the run is to stop after a round; None = it is not.
        callbacks: Told of each round; one that returns True ends the run with it.

    Returns:
        What `result.json` says.

    Raises:
        Stopped: The config cannot be run, or the run could not go on.
    """
    began, stop = time.perf_counter(), stop or Stop()
    with explained(*BUILDING, config=config):
        check_keys_and_values(config)
        early = EarlyStop(**config.stop, callbacks=callbacks, evaluate_every=config.evaluate_every)
        print(headline(config, folder), flush=True)
        pool = instantiate(config.sim)(seed=config.seed)  # Ray, if wanted, while torch is imported
    with closing(pool):
        from clients.population.drawing import draw_student
        from sim.checkpoint.resumable_run import open_run, prepare_rounds
        from sim.checkpoint.writing import Checkpoints
        from sim.engine.rounds import ENDINGS
        from sim.tracking.pending_tracker import Pending
        from sim.tracking.run_folder import CHECKPOINT, LeavingError, conclude, write_peers
        from sim.workers.pool_choice import AutoPool
        from strategies.server.estimated_work import estimated_work_s

        with explained(*BUILDING, config=config):
            check_plugins(config)
            kept = fingerprint(config), config.checkpoints_kept
            checkpoints = Checkpoints(folder / CHECKPOINT, config.seed, *kept)
            done = checkpoints.load(config.rounds) if resume else None
            clients, strategy = federation(config, early)  # before a folder is begun
            described = described_models(config, clients)
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
                    numbers = {n.split(".")[-1]: OmegaConf.select(config, n) for n in NUMBERS}
                    run_rounds = prepare_rounds(*built, stop.asked, early, **numbers)
                with explained(*ENDINGS), stop.at_the_end_of_rounds():
                    parameters = run_rounds()
            finally:
                display.stop()
            tracker.write()
            said = {"seed": config.seed, "rounds": config.rounds, **tracker.totals()}
            said |= early.told(config.rounds) | {"wall_time_s": time.perf_counter() - began}
            if leaked := clients.splits.proxy_in_test:
                said["proxy_inputs_in_test"] = leaked
            result = conclude(folder, parameters, said, described.pop(""))
            display.result(result, str(folder))
            with explained(LeavingError):
                write_peers(folder, strategy, described)
    return result


if __name__ == "__main__":
    from stillhouse.command import main as command

    sys.exit(command(sys.argv[1:], otherwise="run"))
