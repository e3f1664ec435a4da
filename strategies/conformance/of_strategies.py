"""Conformance of strategies: two rounds on a few made-up clients, in this process."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from torch import nn

from clients.messages.arrays import read_arrays, write_arrays
from clients.models.factory import build, parameters_of
from clients.points import Call, Check, Point
from clients.population.clients import SimulatedClients
from strategies.argument_injection import completed, offered
from strategies.conformance.checks import unlike
from strategies.conformance.made_up import crowd

ROUNDS = 2
FAILS = 2
"""Client that fails in one of the checks."""


@dataclass(frozen=True)
class Engine:
    """What runs a strategy, unknown to this room: `sim.checkpoint.conformance_rounds`.

    Attributes:
        begun: Begins a run with the parameters of a model.
        run: (strategy, clients, a run, R, failing client or None) -> that run after round R.
        made_for: Makes what a strategy may want of the engine, by name.
    """

    begun: Callable[[ArrayRecord], Any]
    run: Callable[..., Any]
    made_for: Callable[[SimulatedClients], dict[str, Callable[[], Any]]]


def strategy_point(engine: Engine) -> Point:
    """Make the point of strategies.

    Args:
        engine: What runs them.

    Returns:
        The point.
    """
    rounds = partial(_rounds, engine)

    def runs(plugin: Any) -> str | None:
        """Runs two rounds in which clients are asked, and none fails."""
        for report in rounds(plugin).reports:
            if not report.exchanges:
                return f"asks nobody in round {report.server_round}"
            if report.first_failure():
                return str(report.first_failure())
        return None

    def runs_again(plugin: Any) -> str | None:
        """Comes to the same bits again: model, clients' states, metrics, and what was sent."""
        return _differ(rounds(plugin), rounds(plugin))

    def goes_on(plugin: Any) -> str | None:
        """Goes on after round 1, newly made, as if it had never stopped; or says that it cannot."""
        whole, half = rounds(plugin), rounds(plugin, last=1)
        if half.kept is None:  # its runs cannot be resumed, and say so
            return None
        return _differ(whole, rounds(plugin, before=half))

    def bears_failures(plugin: Any) -> str | None:
        """Goes on without a client that fails."""
        reports = rounds(plugin, failing=FAILS).reports
        return None if len(reports) == 2 else f"ends after {len(reports)} rounds"

    checks: tuple[Check, ...] = (runs, runs_again, goes_on, bears_failures)
    names = (*offered(clients := crowd(), _student(clients), ROUNDS), *engine.made_for(clients))
    call = Call("Flower's five methods", (), names, "__init__")
    return Point("strategy", "strategy", (call,), checks)


# --- steps ---


def _rounds(
    engine: Engine,
    plugin: Any,
    last: int = ROUNDS,
    before: Any = None,
    failing: int | None = None,
) -> Any:
    """Make a strategy and let it run to a round, anew or from where another run ended."""
    clients = crowd()
    student = _student(clients)
    before = before or engine.begun(write_arrays(parameters_of(student)))
    known = offered(clients, student, ROUNDS) | {"overlap": False, "student_threads": None}
    known |= {"report": _unseen, "watch": _unseen}
    bound = partial(plugin) if isinstance(plugin, type) else deepcopy(plugin)
    strategy = completed(bound, known, engine.made_for(clients))
    return engine.run(strategy, clients, before, last, failing)


def _student(clients: SimulatedClients) -> nn.Module:
    return build(clients.student, clients.splits.private.task, np.random.default_rng(0))


def _unseen(*what: Any, **more: Any) -> None:
    """Look at nothing."""


def _differ(one: Any, other: Any) -> str | None:
    """Say in what two runs differ."""
    first, second = read_arrays(one.arrays), read_arrays(other.arrays)
    if first.keys() != second.keys() or any(unlike(first[n], second[n], 0.0) for n in first):
        return "the global model is another one"
    if odd := [k for k in {*one.states, *other.states} if one.states.get(k) != other.states.get(k)]:
        return f"the state of client {min(odd)} is another one"
    ours, theirs = one.reports[-1], other.reports[-1]
    for name in ("train", "evaluated", "exchanges"):
        if repr(getattr(ours, name)) != repr(getattr(theirs, name)):
            return f"'{name}' of round {ours.server_round} differs"
    return None
