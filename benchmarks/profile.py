"""Where a round's time goes, by phase, of federated averaging or of any run.

    python -m benchmarks.profile fedavg --clients 1000 --cohort 100
    python -m benchmarks.profile run data=mnist clients=mixed_small clients.num_clients=50 rounds=3

The functions of `PHASES` are timed where they are called: the outermost one that is running gets
the time, whatever it calls in turn, unless it pulls its work from others; what none of them covers
is "the rest". Everything runs inline,
in one process of one thread, so that both ends of every message are seen; under Ray the clients'
phases shrink by the number of workers and the others do not. The first round is not counted.
"""

import argparse
import functools
import importlib
import os
import pkgutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.results import heading
from benchmarks.work import Clock, arguments, data_folder, work_of

PHASES = {
    "training": [
        "clients.execution.executor.Place._alone",
        "clients.execution.batched_loop.train_together",
    ],
    "prediction": [
        "clients.execution.batched_loop.predict_together",
        "clients.training.evaluation.predict",
        "clients.training.evaluation.predict_and_tap",
        "clients.data.measures.class_measures",
    ],
    "discriminators": [
        "clients.models.discriminator.fit_discriminator",
        "clients.models.discriminator.own_probability",
    ],
    "messages": [
        "clients.messages.arrays.read_arrays",
        "clients.messages.arrays.write_arrays",
        "clients.messages.replies.read_predictions",
        "clients.messages.requests.read_request",
        "clients.messages.sizes.size_bytes",
        "clients.messages.replies.write_reply",
        "clients.messages.requests.write_request",
        "clients.handlers.reply_faults.fault_of",
        "sim.workers.state_serialization.freeze",
        "sim.workers.state_serialization.thaw",
        "sim.workers.runner.frozen_content",
        "pickle.dumps",
        "pickle.loads",
    ],
    "loading models": [
        "clients.execution.model_cache.as_tensors",
        "clients.execution.model_cache.Networks.fresh",
        "clients.execution.model_cache.Networks.loaded",
        "clients.execution.stack.Stack.load",
        "clients.execution.stack.Stack.load_all",
        "clients.execution.stack.Stack.parameters_of",
    ],
    "combining": [
        "flwr.serverapp.strategy.FedAvg.aggregate_train",
        "strategies.server.averaging.WeightedMean.add",
        "strategies.aggregation.streaming.AnswerSums.add",
        "strategies.aggregation.streaming.AnswerSums.merge",
        "strategies.aggregation.ensemble.EnsembleRule.__call__",
    ],
    "distilling": ["clients.training.loop.train"],  # of clients it is part of training, see above
    "evaluating the student": ["clients.training.evaluation.evaluate"],
    "tracking": ["sim.tracking.tracker.Tracker.round", "sim.tracking.tracker.Tracker.view"],
    "checkpoint": ["sim.checkpoint.writing.Checkpoints.commit"],
}
PULLING = {"combining"}
"""Phases whose functions pull what they work on from an iterator: while that runs others do."""
BEGINNING = "sim.engine.grid.PoolGrid.begin_round"
"""Called at the start of every round."""


class Phases:
    """Seconds by phase since the second round began."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.rounds = -1
        self.began = self.ended = 0.0
        self._running: list[str] = []
        self._since = 0.0

    def begin_round(self) -> None:
        """Count a round; forget what was before the second."""
        self.rounds += 1
        if self.rounds == 1:
            self.seconds.clear()
            self.calls.clear()
            self.began = time.perf_counter()

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its time goes to a phase, unless another has it already."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._running and self._running[-1] not in PULLING:
                return function(*args, **kwargs)
            self._switch()
            self._running.append(phase)
            self.calls[phase] += 1
            try:
                return function(*args, **kwargs)
            finally:
                self._switch()
                self._running.pop()

        return call

    def _switch(self) -> None:
        """Give the time since the last switch to the phase that was running."""
        self.ended = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += self.ended - self._since
        self._since = self.ended

    def counting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the function that begins a round."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.begin_round()
            return function(*args, **kwargs)

        return call

    def table(self) -> str:
        """Write Markdown: seconds, share and calls of each phase, per round."""
        if self.rounds < 1:
            raise SystemExit("only one round was run, and the first is not counted: ask for more")
        whole = self.ended - self.began
        rest = whole - sum(self.seconds.values())
        lines = ["| phase | ms per round | share | calls per round |", "|---|---|---|---|"]
        for phase, seconds in [*self.seconds.most_common(), ("the rest", rest), ("round", whole)]:
            calls = f"{self.calls[phase] / self.rounds:.0f}" if phase in self.calls else ""
            lines.append(
                f"| {phase} | {1e3 * seconds / self.rounds:.1f} | {seconds / whole:.1%} | {calls} |"
            )
        return "\n".join(lines)


def owner_of(name: str) -> tuple[Any, str]:
    """Find the module or class that has a function of this dotted name.

    Raises:
        SystemExit: Nothing has that name: it was renamed, and `PHASES` must follow.
    """
    path, _, last = name.rpartition(".")
    try:
        try:
            owner = importlib.import_module(path)
        except ModuleNotFoundError:
            module, _, cls = path.rpartition(".")
            owner = getattr(importlib.import_module(module), cls)
        getattr(owner, last)
    except (ImportError, AttributeError) as error:
        raise SystemExit(f"benchmarks.profile: PHASES names {name}: {error}") from error
    return owner, last


def replace_everywhere(name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put a wrapped function in the place of the function, also where it was imported by name."""
    owner, last = owner_of(name)
    original = getattr(owner, last)
    wrapped = wrap(original)
    setattr(owner, last, wrapped)
    for module in list(sys.modules.values()):
        if module.__name__.split(".")[0] in ("clients", "strategies", "sim", "run"):
            for attribute, value in list(vars(module).items()):
                if value is original:
                    setattr(module, attribute, wrapped)


def install(phases: Phases) -> None:
    """Wrap every function of `PHASES`, after importing all that may have taken it by name."""
    for package in ("clients", "strategies", "sim"):
        for module in pkgutil.walk_packages(
            importlib.import_module(package).__path__, f"{package}."
        ):
            importlib.import_module(module.name)
    for phase, names in PHASES.items():
        for name in names:
            replace_everywhere(name, functools.partial(phases.timed, phase))
    replace_everywhere(BEGINNING, phases.counting)


def profile_fedavg(phases: Phases, words: list[str]) -> str:
    """Run the benchmarks' federated averaging; return what was run."""
    from benchmarks import ours

    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile fedavg")
    arguments(parser)
    args = parser.parse_args(words)
    install(phases)
    with data_folder(args) as folder:
        ours.run(work_of(args), Path(folder), Clock(), 0, ours.GROUP_SIZES[args.model])
    return f"fedavg {' '.join(words)}"


def profile_run(phases: Phases, overrides: list[str]) -> str:
    """Run `run.py` with these overrides, inline; return what was run."""
    import run

    install(phases)
    with tempfile.TemporaryDirectory() as folder:
        words = ["sim=inline", f"hydra.run.dir={folder}/run", *overrides]
        sys.argv = ["run.py", *words]
        run.main()
    return f"run {' '.join(overrides)}"


def main() -> None:
    """Profile one federation and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("fedavg", "run"))
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="its arguments, or run.py's")
    args = parser.parse_args()
    phases = Phases()
    what = (profile_fedavg if args.what == "fedavg" else profile_run)(phases, args.rest)
    cores = len(os.sched_getaffinity(0))
    print(f"{what}: mean of {phases.rounds} rounds, inline, {cores} cores\n\n{heading()}\n")
    print(phases.table())


if __name__ == "__main__":
    main()
