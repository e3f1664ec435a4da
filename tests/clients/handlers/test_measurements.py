"""Messages that only measure, and what takes simulated time."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from clients.app import SimulatedApp
from clients.handlers.base import Handler
from clients.messages.requests import node_id_of
from clients.population.profiles import Profiles
from sim.engine.grid import PoolGrid
from sim.engine.quorum import QuorumLost
from tests.counting import COUNTS, KIND, Counting
from tests.federations import Run, inline, open_pool, run_ours, tiny_clients


@pytest.fixture(scope="module")
def pool(pool_kind: str) -> Any:
    with open_pool(pool_kind, SimulatedApp(tiny_clients())) as opened:
        yield opened


class Watched(Counting):
    """Asks for counts to be watched, before the messages that teach."""

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
        watched = super().configure_train(server_round, arrays, config, grid)
        self.seen = list(grid.send_and_receive(watched))
        self.told = {}
        asked = super().configure_train(server_round, arrays, config, grid)
        return [Message(each.content, each.metadata.dst_node_id, "train.taught") for each in asked]


TAUGHT = replace(COUNTS, kind="train.taught")
CLOCK = Profiles(np.full(5, 1.0), np.full(5, np.inf), np.full(5, np.inf), np.zeros(5))


def timed(pool: Any, watched: Handler, **told: Any) -> Run:
    clients, strategy = tiny_clients(profile=lambda n, rng: CLOCK), Watched([watched, TAUGHT])
    strategy.told = told
    pool.load(SimulatedApp(clients, strategy.handlers))
    grid = PoolGrid(pool, clients.architectures, profiles=clients.profiles)
    return run_ours(pool, clients, strategy, grid=grid)


def turns(run: Run, kind: str) -> set[int]:
    return {round(e.simulated_time_s or 0.0) for e in run.grid.exchanges if e.phase == kind}


def test_a_measurement_costs_no_time_and_ends_no_run(pool: Any) -> None:
    measured = timed(pool, replace(COUNTS, measurement=True), most=0)  # all of them are faults
    assert len([e for e in measured.grid.exchanges if e.failure]) == 5
    assert (turns(measured, KIND), turns(measured, "train.taught")) == ({0}, {240})
    assert measured.grid.simulated_time_s == 240.0  # 10 multiplications for each of 24 examples
    with pytest.raises(QuorumLost, match="phase train.counts"):
        timed(pool, COUNTS, most=0)
    assert timed(pool, COUNTS).grid.simulated_time_s == 480.0


def never(content: RecordDict) -> bool:
    return False


def always(content: RecordDict) -> bool:
    return True


def test_a_handler_says_what_takes_time(pool: Any) -> None:
    assert timed(pool, replace(COUNTS, timed=never)).grid.simulated_time_s == 240.0
    evaluated = replace(COUNTS, kind="evaluate.counts")
    for handler, seconds in ((evaluated, 0.0), (replace(evaluated, timed=always), 240.0)):
        strategy = Counting([handler], kind="evaluate.counts")
        clients = tiny_clients(profile=lambda n, rng: CLOCK)
        pool.load(SimulatedApp(clients, strategy.handlers))
        grid = PoolGrid(pool, clients.architectures, profiles=clients.profiles)
        run_ours(pool, clients, strategy, grid=grid)
        assert grid.simulated_time_s == seconds


def test_who_is_watched_has_turns_of_its_own() -> None:
    """A client's random stream is keyed by its turn."""
    clients = tiny_clients()
    for measurement, turn in ((True, 0), (False, 1)):
        app = SimulatedApp(clients, [replace(COUNTS, measurement=measurement), TAUGHT])
        grid = PoolGrid(inline(app), clients.architectures)
        grid.begin_round(3)
        content = RecordDict({"config": ConfigRecord({"server-round": 3})})
        sent = [Message(content, node_id_of(1), kind) for kind in (KIND, "train.taught")]
        assert [*grid.push_messages(sent)][1] == f"3-1-{turn}"
