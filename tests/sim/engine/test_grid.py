"""Flower's Grid over a pool: order, state, sharing, isolation, errors."""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, strategy_utils
from flwr.supercore.run import Run as FlowerRun

from clients.messages.accumulator import Sieve
from clients.messages.requests import NODE_ID_BASE, client_id_of, node_id_of
from sim.engine.exchanges import CLIENT_RAISED, REPLY_REJECTED
from sim.engine.grid import PoolGrid
from sim.engine.rounds import ENDINGS
from sim.workers.pools import Pool
from sim.workers.tasks import Outcome, Task
from tests.federations import SEED, grid_over, inline, run_foreign, vector
from tests.foreign_clients import foreign_app

LOOK = (
    "look at sim.workers.process_setup.assume_task_identity and sim.workers.tasks.run_group before "
    "raising the pin"
)


def to(client_id: int, action: str, tag: int = 0, content: RecordDict | None = None) -> Message:
    """Ask a foreign client for an action."""
    config = RecordDict({"config": ConfigRecord({"tag": tag})})
    return Message(content or config, dst_node_id=node_id_of(client_id), message_type=action)


def metrics_of(reply: Message) -> dict[str, Any]:
    return dict(reply.content.metric_records["metrics"])


def who(replies: Any) -> list[int]:
    return [client_id_of(reply.metadata.src_node_id) for reply in replies]


# --- Flower's side of the contract ---


def test_the_version_of_flower_is_the_one_that_was_read() -> None:
    assert version("flwr").split(".")[:2] == ["1", "41"], LOOK


def test_flower_refuses_messages_until_the_task_identity_is_assumed() -> None:
    script = """
from flwr.app import Message, RecordDict
from sim.workers.process_setup import assume_task_identity
try:
    Message(RecordDict(), dst_node_id=5, message_type="train")
    print("accepted")
except RuntimeError as error:
    print("refused:", error)
assume_task_identity(run_id=9)
message = Message(RecordDict(), dst_node_id=5, message_type="train")
print(message.metadata.run_id, message.metadata.src_node_id, message.metadata.dst_node_id)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"{LOOK}\n{done.stderr}"
    assert lines[0].startswith("refused:"), f"Flower no longer needs it: {LOOK}\n{lines}"
    assert lines[1] == "9 1 5", f"it no longer suffices: {LOOK}\n{lines}"


def test_a_message_can_still_be_made_from_content_and_metadata() -> None:
    sent = to(3, "train.count")
    content = RecordDict()
    again = Message(content, metadata=sent.metadata)  # type: ignore[call-overload]
    assert again.content is content, LOOK
    assert again.metadata.dst_node_id == NODE_ID_BASE + 3, LOOK


def test_the_grid_implements_all_of_flowers_abstract_grid() -> None:
    assert issubclass(PoolGrid, Grid)
    assert not PoolGrid.__abstractmethods__
    assert Grid.__abstractmethods__ <= set(vars(PoolGrid))


def test_created_messages_carry_what_they_were_given() -> None:
    grid = grid_over(inline(foreign_app()))
    grid.set_run(FlowerRun.create_empty(run_id=4))
    content = RecordDict()
    message = grid.create_message(content, "evaluate.x", node_id_of(2), "group", ttl=12.5)
    data = message.metadata
    assert (data.run_id, data.message_type, data.group_id) == (4, "evaluate.x", "group")
    assert (data.dst_node_id, data.ttl) == (NODE_ID_BASE + 2, 12.5)
    assert message.content is content
    assert grid.run.run_id == 4
    grid.set_run(FlowerRun.create_empty(run_id=1))


def test_node_ids_are_stable_and_derived_from_client_ids(foreign_pool: Pool) -> None:
    expected = [NODE_ID_BASE, NODE_ID_BASE + 1, NODE_ID_BASE + 2]
    grid = grid_over(foreign_pool, 3)
    assert list(grid.get_node_ids()) == expected
    grid.begin_round(2)
    assert list(grid.get_node_ids()) == expected
    assert [node.node_id for node in grid.get_nodes()] == expected


# --- order and state ---


def test_replies_are_ordered_by_client_whatever_the_order_of_sending(foreign_pool: Pool) -> None:
    for order in permutations(range(3)):
        grid = grid_over(foreign_pool, 3)
        replies = list(grid.send_and_receive([to(k, "train.count", tag=k) for k in order]))
        assert who(replies) == [0, 1, 2]
        assert [metrics_of(reply)["tag"] for reply in replies] == [0, 1, 2]
        assert [exchange.client_id for exchange in grid.exchanges] == [0, 1, 2]


def test_messages_to_one_client_run_in_order_and_pass_its_state_on(foreign_pool: Pool) -> None:
    grid = grid_over(foreign_pool, 2)
    tags = ((1, 10), (0, 20), (1, 30), (1, 40))
    replies = list(grid.send_and_receive([to(k, "train.count", tag=tag) for k, tag in tags]))
    # One wave for each client's first message, one for the second, one for the third.
    seen = [(metrics_of(r)["tag"], metrics_of(r)["before"]) for r in replies]
    assert who(replies) == [0, 1, 1, 1]
    assert seen == [(20, 0), (10, 0), (30, 1), (40, 2)]


def test_state_survives_rounds_and_belongs_to_one_client(foreign_pool: Pool) -> None:
    grid = grid_over(foreign_pool, 3)
    for server_round, asked in ((1, (0, 2)), (2, (2,)), (3, (0, 1, 2))):
        grid.begin_round(server_round)
        replies = list(grid.send_and_receive([to(k, "train.count") for k in asked]))
        assert len(grid.exchanges) == len(asked)
    assert [metrics_of(reply)["before"] for reply in replies] == [1, 0, 2]
    counts = [grid.states.of(k).metric_records["counter"]["seen"] for k in range(3)]
    assert counts == [2, 1, 3]
    assert not grid_over(foreign_pool, 3).states.of(0)


def test_a_failing_clients_state_is_as_before_its_message(foreign_pool: Pool) -> None:
    grid = grid_over(foreign_pool, 2)
    list(grid.send_and_receive([to(0, "train.count"), to(1, "train.count")]))
    failed = [to(0, "train.count_then_raise"), to(1, "train.count")]
    replies = list(grid.send_and_receive(failed))
    assert [reply.has_error() for reply in replies] == [True, False]
    assert replies[0].error.code == CLIENT_RAISED
    assert "after the state was changed" in replies[0].error.reason
    assert "_count_then_raise" in grid.exchanges[2].traceback
    counts = [grid.states.of(k).metric_records["counter"]["seen"] for k in range(2)]
    assert counts == [1, 2]


# --- errors ---


@pytest.mark.parametrize("client_id", [-1, 4, -NODE_ID_BASE + 1])
def test_an_unknown_node_is_an_error_that_names_it(client_id: int) -> None:
    grid = grid_over(inline(foreign_app()), 4)
    with pytest.raises(ValueError, match=str(node_id_of(client_id))):
        grid.send_and_receive([to(client_id, "train.count")])


def test_a_strategy_that_waits_for_more_clients_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    naps: list[float] = []
    monkeypatch.setattr(strategy_utils, "sleep", naps.append)
    strategy = FedAvg(min_available_nodes=5)
    with pytest.raises(ENDINGS, match=r"more clients than the federation's 4.*min_available"):
        run_foreign(inline(foreign_app()), strategy, vector())
    assert 0 < len(naps) < 60  # so many seconds in real life


def test_a_clients_own_error_is_counted_with_its_reason(foreign_pool: Pool) -> None:
    grid = grid_over(foreign_pool, 2)
    replies = list(grid.send_and_receive([to(1, "train.say_error")]))
    assert replies[0].has_error()
    assert grid.exchanges[0].failure == "battery is empty"


@pytest.mark.parametrize("how", ["none", "dict", "garbage"])
def test_a_client_that_returns_nonsense_is_counted_and_ends_nothing(
    foreign_pool: Pool, how: str
) -> None:
    grid = grid_over(foreign_pool, 3)
    content = RecordDict({"config": ConfigRecord({"how": how})})
    replies = list(grid.send_and_receive([to(k, "train.break", content=content) for k in range(3)]))
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert grid.exchanges[1].failure


def test_a_client_cannot_answer_in_anothers_name(foreign_pool: Pool) -> None:
    grid = grid_over(foreign_pool, 3)
    replies = list(grid.send_and_receive([to(1, "train.forge")]))
    assert who(replies) == [1]


# --- payloads ---


class CountingPool:
    """Counts what is shared and passes everything on."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.shared, self.handlers = pool, Counter[int](), pool.handlers

    def share(self, content: RecordDict) -> Any:
        self.shared[id(content)] += 1
        return self.pool.share(content)

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        return self.pool.run(tasks)

    def state_of(self, handle: Any) -> RecordDict:
        return self.pool.state_of(handle)

    def close(self) -> None:
        self.pool.close()


def test_equal_payload_objects_are_shared_once_in_a_wave(foreign_pool: Pool) -> None:
    common, other = (RecordDict({"config": ConfigRecord({"tag": t})}) for t in (1, 2))
    pool, answers = CountingPool(foreign_pool), []
    grid = PoolGrid(pool, ["a"] * 4, on_answer=lambda *count: answers.append(count))
    asked = [(0, common), (1, common), (2, other), (3, common), (3, common)]
    replies = grid.send_and_receive([to(k, "train.count", content=c) for k, c in asked])
    # First wave: both payloads once; second wave, client 3 again: the common one.
    assert pool.shared == {id(common): 2, id(other): 1}
    assert [metrics_of(reply)["tag"] for reply in replies] == [1, 1, 2, 1, 1]
    assert answers == [(1, 4), (2, 4), (3, 4), (4, 4), (1, 1)]  # (so far, in all) of each wave


def test_a_client_that_changes_its_request_changes_nobody_elses(foreign_pool: Pool) -> None:
    arrays = ArrayRecord({"w": Array(np.array([5.0, 6.0]))})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"tag": 1})})
    grid = grid_over(foreign_pool, 4)
    requests = [to(k, "train.mutate", content=content) for k in (0, 1, 2, 3, 0)]
    replies = list(grid.send_and_receive(requests))
    assert [metrics_of(reply)["seen"] for reply in replies] == [5.0] * 5
    assert set(content) == {"arrays", "config"}
    assert content.config_records["config"]["tag"] == 1
    assert arrays["w"].numpy().tolist() == [5.0, 6.0]


def test_a_client_that_changes_its_metadata_does_not_change_the_senders(foreign_pool: Pool) -> None:
    content = RecordDict({"arrays": vector(), "config": ConfigRecord({"tag": 1})})
    request = to(1, "train.mutate", content=content)
    list(grid_over(foreign_pool).send_and_receive([request]))
    assert request.metadata.group_id == ""


def test_a_rejected_reply_becomes_an_error_with_the_reason(foreign_pool: Pool) -> None:
    grid = PoolGrid(foreign_pool, ["a", "b"])
    sieve = Sieve(lambda q, r: f"tag {metrics_of(r)['tag']} is bad")
    (reply,) = grid.send_and_fold([to(1, "train.count", tag=6)], sieve)
    assert (reply.error.code, reply.error.reason) == (REPLY_REJECTED, "tag 6 is bad")
    (exchange,) = grid.exchanges
    assert (exchange.failure, exchange.metrics) == ("tag 6 is bad", {})
    assert exchange.reply_bytes > 0  # it did cross


# --- randomness ---


def test_clients_leave_the_drivers_generators_alone(foreign_pool: Pool) -> None:
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    grid = grid_over(foreign_pool)
    list(grid.send_and_receive([to(0, "train.draw"), to(1, "train.count_then_raise")]))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert before == after


def draws(pool: Pool, server_round: int, *client_ids: int) -> list[tuple[float, ...]]:
    """Let clients draw from the global generators, after the driver has been disturbed."""
    grid = grid_over(pool, 3)
    grid.begin_round(server_round)
    random.random(), np.random.rand(), torch.rand(())
    replies = grid.send_and_receive([to(k, "train.draw") for k in client_ids])
    return [tuple(metrics_of(reply)[name] for name in "abc") for reply in replies]


def test_a_clients_draws_depend_on_seed_round_client_and_turn_only(foreign_pool: Pool) -> None:
    keyed = [*draws(foreign_pool, 1, 0, 0, 1), *draws(foreign_pool, 2, 0)]
    values = [value for one in keyed for value in one]
    assert len(set(values)) == len(values) == 12  # 4 keys, 3 generators
    # keyed: client 0, client 0 again, client 1; then client 0 in round 2.
    assert draws(foreign_pool, 1, 1) == keyed[2:3]  # alone, as in company
    assert draws(foreign_pool, 1, 2, 1, 0)[:2] == [keyed[0], keyed[2]]
    assert draws(inline(foreign_app()), 1, 0, 0, 1) == keyed[:3]
    other = [value for one in draws(inline(foreign_app(), SEED + 1), 1, 0, 1) for value in one]
    assert not set(values) & set(other)
