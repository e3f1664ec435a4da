"""An accumulator of a user's own: replies are pushed into it where they are made, on both pools."""

from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID

from clients.app import SimulatedApp
from clients.messages.accumulator import Reducer, is_part, part_message
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import node_id_of
from sim.engine.grid import PoolGrid
from tests.counting import COUNTS, KIND, Counting
from tests.federations import open_pool, run_ours, tiny_clients


class Total:
    """Counts by class, in all; notes how many replies and parts came."""

    def __init__(self) -> None:
        self.counts: Any = 0.0
        self.replies, self.parts = 0, 0

    def add(self, content: RecordDict) -> None:
        self.counts = self.counts + read_arrays(content["counts"])["by-class"]  # type: ignore[arg-type]
        self.replies += 1

    def merge(self, part: RecordDict) -> None:
        arrays = read_arrays(part["counts"])  # type: ignore[arg-type]
        self.counts = self.counts + arrays["by-class"]
        self.replies, self.parts = self.replies + int(arrays["replies"]), self.parts + 1

    def part(self) -> RecordDict:
        arrays = {"by-class": self.counts, "replies": np.array(self.replies)}
        return RecordDict({"counts": write_arrays(arrays | {"parts": np.array(self.parts)})})


class Totalling(Counting):
    """Has counts added up in the workers."""

    def intake(self, server_round: int, phase: str) -> Reducer | None:
        return Reducer(Total) if phase == "train" else None

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        self.came = list(replies)
        return super().aggregate_train(server_round, self.came)


@pytest.fixture(scope="module")
def pool(pool_kind: str) -> Any:
    with open_pool(pool_kind, SimulatedApp(tiny_clients(), [COUNTS])) as opened:
        yield opened


@pytest.mark.parametrize(("group_size", "parts"), [(1, 5), (2, 3), (5, 2)])
def test_replies_come_as_one_part_of_parts(pool: Any, group_size: int, parts: int) -> None:
    """Clients of two architectures, 3 and 2 of them."""
    clients, strategy = tiny_clients(), Totalling()
    pool.load(SimulatedApp(clients, strategy.handlers))
    grid = PoolGrid(pool, clients.architectures, group_size=group_size)
    run_ours(pool, clients, strategy, grid=grid)
    labels = clients.splits.private.labels
    assert strategy.sums == [np.bincount(labels, minlength=4).tolist()]
    [came] = strategy.came
    assert is_part(came)
    arrays = read_arrays(came.content["counts"])
    assert (int(arrays["replies"]), int(arrays["parts"])) == (5, parts)


def test_who_fails_is_in_no_part_and_comes_as_an_error(pool: Any) -> None:
    clients, strategy = tiny_clients(), Totalling(failing=2)
    pool.load(SimulatedApp(clients, strategy.handlers))
    run_ours(pool, clients, strategy)
    part, failed = strategy.came
    assert is_part(part)
    assert (failed.metadata.src_node_id, failed.has_error()) == (node_id_of(2), True)
    left = np.delete(np.arange(5), 2)
    own = np.concatenate([clients.partitions[k] for k in left])
    labels = clients.splits.private.labels[own]
    assert strategy.sums == [np.bincount(labels, minlength=4).tolist()]


def test_a_part_comes_in_nobodys_name_but_the_servers() -> None:
    content = RecordDict({"config": ConfigRecord({"server-round": 1})})
    asked = Message(content, node_id_of(0), KIND)
    part = part_message(RecordDict(), asked)
    assert part.metadata.src_node_id == SUPERLINK_NODE_ID
    assert not is_part(Message(RecordDict(), reply_to=asked))
    assert is_part(part)
