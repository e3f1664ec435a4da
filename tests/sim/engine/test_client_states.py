"""A grid tells which clients' states changed, and takes them back."""

from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from clients.messages.requests import node_id_of
from sim.engine.grid import PoolGrid
from sim.workers.pools import Pool
from sim.workers.state_serialization import freeze
from tests.federations import vector


def test_a_grid_tells_which_states_changed_and_takes_them_back(everyone_pool: Pool) -> None:
    def count(grid: Grid, *client_ids: int) -> list[Any]:
        content = RecordDict({"config": ConfigRecord({"tag": 0}), "arrays": vector("w")})
        sent = [
            Message(content, dst_node_id=node_id_of(k), message_type="train.count")
            for k in client_ids
        ]
        replies = grid.send_and_receive(sent)
        return [reply.content.metric_records["metrics"]["before"] for reply in replies]

    grid = PoolGrid(everyone_pool, ["a"] * 4)
    grid.begin_round(1)
    count(grid, 0, 2)
    count(grid, 2)
    states = dict(grid.states.changed())
    assert list(states) == [0, 2]
    assert dict(grid.states.changed()) == {}
    count(grid, 3)
    assert [*grid.states.changed()] == [3]

    other = PoolGrid(everyone_pool, ["a"] * 4)
    other.begin_round(2)
    other.states.load(states)
    assert dict(other.states.changed()) == {}
    assert count(other, 0, 1, 2) == [1, 0, 2]
    assert freeze(grid.states.of(2)) == states[2]
