"""A run that can be resumed: its folder, anew or from a checkpoint, and its rounds."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy
from torch import nn

from clients.app import SimulatedApp
from clients.data import natural_clients, owners_by_client, renumbered, without_examples
from clients.duck_typing import told
from clients.messages.arrays import read_arrays, write_arrays
from clients.models.factory import Parameters, load_parameters, parameters_of
from clients.partition import summary
from clients.population.clients import SimulatedClients
from clients.training.evaluation import evaluate
from clients.training.loop import threads_of_torch
from sim.analysis.probes.asking import Ask, Asking
from sim.analysis.probes.values import Probe
from sim.checkpoint.early_stop import EarlyStop
from sim.checkpoint.writing import Checkpoint, Checkpoints
from sim.engine.grid import PoolGrid
from sim.engine.model_buffers import buffers_of
from sim.engine.rounds import RoundReport, run_rounds
from sim.tracking.console import Display
from sim.tracking.round_metrics import RESERVED
from sim.tracking.run_folder import STATES, begin, changed_versions
from sim.tracking.tracker import Tracker
from sim.workers.pools import Pool


def open_run(
    folder: Path,
    clients: SimulatedClients,
    rounds: int,
    done: Checkpoint | None,
    config_text: str,
    probes: Mapping[str, Probe | Ask],
    where: str = "",
    **options: Any,
) -> tuple[Tracker, Display, Asking]:
    """Write down what is to be run; return what will follow it.

    Args:
        folder: The run folder.
        clients: All of the federation's.
        rounds: R, the last round.
        done: The checkpoint that the run goes on from; None = it begins.
        config_text: The resolved config as YAML.
        probes: What to compute from each round's view, and what to ask networks, by name.
        where: In which processes clients run, and why, if that was chosen.
        **options: What else the `Tracker` is told.

    Returns:
        What writes rounds down, what shows them, and what asks networks.

    Raises:
        ProbeError: A function cannot be asked; nothing is written down.
    """
    asking = Asking(probes, clients, options["proxy_labels"] is not None, RESERVED)
    seeing = {name: probe for name, probe in probes.items() if not isinstance(probe, Ask)}
    private = clients.splits.private
    kinds = private.task.strata(private.labels)
    owners = owners_by_client(private, clients.partitions)
    shape = replace(summary(kinds, clients.partitions, private.task.num_strata), owners=owners)
    begin(folder, config_text, shape, None if done is None else done.lines)
    kept = (None, {}) if done is None else (done.clients, done.probes)
    measure = private.task.measure
    told = {"measure": measure, "last_round": rounds, **options}
    tracker = Tracker(folder, seeing, config_text, *kept, **told)
    if (sample := clients.splits.sample) is not None:
        size = f"{len(sample):,} of {len(clients.splits.test):,} test examples"
        measuring = f"clients and ensembles measured on {size} before round {rounds}"
        where = "; ".join([where, measuring] if where else [measuring])
    display = Display(rounds, clients.architectures, shape, measure, where)
    whose = None if owners is None else natural_clients(private, clients.partitions, owners)
    for note in filter(None, (renumbered(private), without_examples(private), whose)):
        display.warn(note)
    if leaked := clients.splits.proxy_in_test:
        display.warn(f"{leaked} of {len(clients.splits.proxy)} proxy inputs are test inputs too")
    if options["proxy_labels"] is None:
        display.warn(f"{_unlabelled(clients)}: probes that need them are left out")
    if done is not None:
        display.resume(done.server_round, changed_versions(done.versions), done.damage)
    return tracker, display, asking


def _unlabelled(clients: SimulatedClients) -> str:
    """Say why answers are not compared with labels of the proxy set."""
    task, labels = clients.splits.private.task, clients.splits.proxy.labels
    if not task.soft:
        return "there are no classes"
    if not task.alike:
        return "a class of one head is none of another"
    some = labels.dtype.kind == "i" and len(labels) and labels.min() < 0 <= labels.max()
    return "not all of the proxy set has labels" if some else "the proxy set has no labels"


def prepare_rounds(
    pool: Pool,
    clients: SimulatedClients,
    student: nn.Module,
    strategy: Strategy,
    tracker: Tracker,
    display: Display,
    asking: Asking,
    checkpoints: Checkpoints,
    stopping: Callable[[], bool],
    early: EarlyStop,
    *,
    group_size: int,
    rounds: int,
    checkpoint_every: int,
    student_threads: int | None = None,
    **numbers: Any,
) -> Callable[[], Parameters]:
    """Prepare the rounds: load the clients into their pool, hand everyone what the checkpoint has.

    Args:
        pool: Where clients run.
        clients: All of the federation's.
        student: The global student before the first round.
        strategy: Any Flower strategy.
        tracker: Writes rounds down.
        display: Shows them.
        asking: Asks networks.
        checkpoints: Of the run; the one to go on from, if it does, has been loaded.
        stopping: Whether a round is to be the last that is run now.
        early: Told of each round, and whether it is to be the last.
        group_size: Most clients that a worker gets at once, >= 1.
        rounds: R, the last round.
        checkpoint_every: Commit each so many rounds, and the last; 0 = never.
        student_threads: Of this process, while the student is measured; None = those it has.
        **numbers: `evaluate_every` and `quorum` of the round loop.

    Returns:
        What runs the rounds and returns the final student; without one it has no parameters.
    """
    numbers |= {"rounds": rounds, "seed": clients.seed, "buffers": buffers_of(student, strategy)}
    app = SimulatedApp(clients, (*(told(strategy, "handlers") or ()), *asking.handlers))
    pool.load(app)
    has_student = getattr(strategy, "has_student", True)
    taught, shared_of = student if has_student else None, told(strategy, "shared_of")

    def evaluate_student(arrays: ArrayRecord) -> dict[str, float]:
        load_parameters(student, read_arrays(arrays))
        with threads_of_torch(student_threads):
            return evaluate(student, clients.splits.test) if has_student else {}

    def report(round_report: RoundReport) -> bool:
        display.round(tracker.round(round_report), round_report.first_failure())
        return early.after_round(tracker.summaries)

    about: dict[str, Any] = {"on_answer": display.answer, "on_note": display.warn}
    about |= {"group_size": group_size, "cost": clients.costs(), "profiles": clients.profiles}
    about |= {"states": pool.states(tracker.folder / STATES), "encode": app.encode_request}
    grid = PoolGrid(pool, clients.architectures, **about)
    start, first_round = checkpoints.start(strategy, grid, write_arrays(parameters_of(student)))
    first_round = rounds + 1 if early.after_resume(tracker.summaries) else first_round
    often, ends = (checkpoint_every, rounds), (stopping, early.ended)
    commit = checkpoints.after_rounds(*often, display.warn, strategy, grid, tracker, *ends)

    def run() -> Parameters:
        arrays = run_rounds(
            strategy,
            grid,
            start,
            evaluate=evaluate_student,
            report=report,
            first_round=first_round,
            commit=commit,
            watch=tracker.view,
            ask=partial(_ask, asking, taught, student_threads, grid, tracker, display, shared_of),
            stopping=stopping,
            **numbers,
        )
        return read_arrays(arrays) if has_student else {}

    return run


def _ask(
    asking: Asking,
    student: nn.Module | None,
    threads: int | None,
    grid: PoolGrid,
    tracker: Tracker,
    display: Display,
    shared_of: Callable[[ArrayRecord], ArrayRecord] | None,
    server_round: int,
    arrays: ArrayRecord,
) -> None:
    """Have the networks of a round asked, the student with the parameters that it came to."""
    if not asking.due(server_round):
        return
    if student is not None:
        load_parameters(student, read_arrays(arrays))
    shared = None if shared_of is None else read_arrays(shared_of(arrays))
    with threads_of_torch(threads):
        asking(server_round, student, grid, tracker.found, display.warn, shared)
