"""Trial runs: a few rounds of a strategy in this process, anew or taken up where another ended.

What strategies/ is handed to hold a strategy to its contract, for it does not know the engine.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp.strategy import Strategy

from clients.app import SimulatedApp
from clients.duck_typing import told
from clients.handlers.base import is_evaluation
from clients.messages.requests import client_id_of
from clients.population.clients import SimulatedClients
from sim.checkpoint.strategy_state import restore_strategy, strategy_state
from sim.engine.grid import PoolGrid
from sim.engine.rounds import RoundReport, run_rounds
from sim.topology.availability import Availability
from sim.topology.mixing import metropolis_hastings
from sim.topology.sequences import random_matchings
from sim.topology.topology import Topology
from sim.workers.pools import InlinePool


@dataclass(frozen=True, eq=False)
class Trial:
    """What some rounds came to.

    Attributes:
        last_round: 0 = none yet.
        arrays: The global model's parameters.
        states: The clients' states, frozen, by client id.
        kept: What the strategy keeps; None = it does not say.
        reports: Of the rounds that were run.
    """

    last_round: int
    arrays: ArrayRecord
    states: Mapping[int, bytes]
    kept: RecordDict | None
    reports: tuple[RoundReport, ...] = ()


def begun(arrays: ArrayRecord) -> Trial:
    """Begin a run, with the parameters of its first global model."""
    return Trial(0, arrays, {}, None)


def trial_run(
    strategy: Strategy,
    clients: SimulatedClients,
    before: Trial,
    rounds: int,
    failing: int | None = None,
) -> Trial:
    """Run rounds.

    Args:
        strategy: As newly made.
        clients: All of the federation's.
        before: Where to go on.
        rounds: R, the last round.
        failing: A client that fails at everything but measurements; None = nobody does.

    Returns:
        What they came to.
    """
    logging.getLogger("flwr").setLevel(logging.WARNING)
    pool, reports = InlinePool(clients.seed), list[RoundReport]()
    app = SimulatedApp(clients, told(strategy, "handlers") or ())
    if failing is not None:
        app.serve = partial(_served, app.serve, failing)  # type: ignore[method-assign]
    pool.load(app)
    grid = PoolGrid(pool, clients.architectures, group_size=2)
    grid.states.load(before.states)
    if before.kept is not None:
        restore_strategy(strategy, before.kept)
    arrays = run_rounds(
        strategy,
        grid,
        before.arrays,
        rounds=rounds,
        seed=clients.seed,
        evaluate=lambda arrays: {},
        report=reports.append,
        first_round=before.last_round + 1,
    )
    states = {**before.states, **grid.states.changed()}
    try:
        kept: RecordDict | None = strategy_state(strategy)
    except NotImplementedError:
        kept = None
    return Trial(rounds, arrays, states, kept, tuple(reports))


def made_for(clients: SimulatedClients) -> dict[str, Callable[[], Any]]:
    """Say how to make what a strategy may want of the engine: pairs of peers, all of them there.

    Args:
        clients: All of the federation's.

    Returns:
        What makes each, by the names that a strategy's arguments have.
    """
    peers: dict[str, Any] = {"num_peers": len(clients.architectures), "seed": clients.seed}
    pool = InlinePool(clients.seed)
    return {
        "train_peers": lambda: pool.train_peers(lambda note: None),
        "mixing": lambda: (
            Topology(random_matchings, metropolis_hastings, redraw=True, **peers).mixing
        ),
        "availability": lambda: Availability(**peers),
    }


def _served(
    serve: Callable[..., Iterator[Message | Exception]],
    failing: int,
    requests: Sequence[Message],
    *what: Any,
) -> Iterator[Message | Exception]:
    """Answer as the app does, but for one client."""
    for request, item in zip(requests, serve(requests, *what), strict=False):
        about = request.metadata
        fails = client_id_of(about.dst_node_id) == failing and not is_evaluation(about.message_type)
        yield RuntimeError("made to fail") if fails else item
