"""A message of a user's own: what its handler says is what holds, on both pools."""

import importlib
import pickle
import pkgutil
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping as Wrapped
from flwr.serverapp.strategy import FedAvg

import clients.handlers
from clients.app import SimulatedApp
from clients.duck_typing import told
from clients.handlers.base import Handler, by_kind, each
from clients.handlers.parameters import MESSENGERS, PARAMETERS
from clients.handlers.peer_targets import train_targets
from clients.handlers.transfer import train_received
from clients.messages.arrays import write_arrays
from clients.messages.requests import node_id_of
from clients.mutual import rules
from clients.mutual.messenger import Messenger
from clients.training.losses import kl
from sim.engine.grid import PoolGrid
from sim.engine.quorum import QuorumLost
from tests.counting import COUNTS, KIND, Counting, count
from tests.federations import HANDLERS, Run, inline, open_pool, run_ours, tiny_clients, trainer


@pytest.fixture(scope="module")
def pool(pool_kind: str) -> Any:
    with open_pool(pool_kind, SimulatedApp(tiny_clients())) as opened:
        yield opened


def played(pool: Any, strategy: Any, rounds: int = 1, **options: Any) -> Run:
    clients = tiny_clients()
    pool.load(SimulatedApp(clients, strategy.handlers))
    grid = PoolGrid(pool, clients.architectures)
    return run_ours(pool, clients, strategy, rounds, grid=grid, **options)


def failures(run: Run) -> dict[int, str]:
    return {e.client_id: e.failure for e in run.grid.exchanges if e.failure}


def test_a_message_of_ones_own_is_answered_from_data_and_state(pool: Any) -> None:
    strategy = Counting()
    run = played(pool, strategy, rounds=2)
    private = tiny_clients().splits.private.labels
    assert strategy.sums == [np.bincount(private, minlength=4).tolist()] * 2
    assert [e.metrics["before"] for e in run.grid.exchanges] == [1.0] * 5  # in round 2


def test_a_number_that_is_bound_to_it_changes_the_answers(pool: Any) -> None:
    strategy = Counting([replace(COUNTS, answer=each(partial(count, most=1)))])
    played(pool, strategy)
    assert max(strategy.sums[0]) <= 5.0


def test_a_key_that_it_does_not_read_fails_by_name(pool: Any) -> None:
    said = "key 'lr' of a 'train.counts' request is read by none .*: server-round, most, failing"
    with pytest.raises(QuorumLost, match=said):
        played(pool, Counting(lr=0.1))


def test_what_it_calls_a_fault_is_one_and_a_client_that_raises_fails_alone(pool: Any) -> None:
    with pytest.raises(QuorumLost, match="nobody has a class 3"):
        played(pool, Counting(most=0))
    assert failures(played(pool, Counting(failing=2))) == {2: "OSError: no labels left"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"replies": {"counts": ArrayRecord}}, "sends 'metrics', which was not asked for"),
        (
            {"replies": {"counts": MetricRecord, "metrics": MetricRecord}},
            "record 'counts' is of ArrayRecord, expected MetricRecord",
        ),
        ({"limits": {"counts": 2.0}}, r"array 'counts/by-class' goes beyond 2e\+00"),
    ],
)
def test_what_may_come_back_is_what_it_says(pool: Any, changed: Any, said: str) -> None:
    with pytest.raises(QuorumLost, match=said):
        played(pool, Counting([replace(COUNTS, **changed)]))


def test_without_limits_numbers_are_parameters_and_without_replies_all_may_come(pool: Any) -> None:
    strategy = Counting([replace(COUNTS, replies=None, fault=None)], most=0)
    assert failures(played(pool, strategy)) == {}


def test_it_may_answer_flowers_own_message_in_the_place_of_ours(pool: Any) -> None:
    strategy = Counting([replace(COUNTS, kind="train")], kind="train")
    played(pool, strategy)
    assert sum(strategy.sums[0]) == len(tiny_clients().splits.private)


class Hoarder:
    """Answers with a number that it keeps in itself."""

    def __init__(self) -> None:
        self.kept = 0

    def __call__(self, clients: Any, request: Message, context: Any, device: str) -> RecordDict:
        self.kept += 1
        metrics = MetricRecord({"num-examples": 1, "kept": self.kept})
        return RecordDict({"counts": write_arrays({"by-class": np.zeros(4)}), "metrics": metrics})


def test_it_keeps_nothing_but_in_a_clients_state(pool: Any) -> None:
    hoarding = replace(COUNTS, answer=each(Hoarder()))
    with pytest.raises(QuorumLost, match="handler of 'train.counts': Hoarder changed its 'kept'"):
        played(pool, Counting([hoarding]))


# --- what is refused ---


@pytest.mark.parametrize("name", ["keys", "records"])
def test_a_text_is_no_tuple_of_names(name: str) -> None:
    with pytest.raises(ValueError, match=f"handler of 'train.counts': {name} is 'lr', expected a"):
        replace(COUNTS, **{name: "lr"})


@pytest.mark.parametrize("kind", ["learn", "train.", "train.a b", "train.a.b", ""])
def test_a_type_that_flower_does_not_know_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=f"handler of '{kind}': expected train, query, evaluate"):
        replace(COUNTS, kind=kind)


def test_two_for_one_type_and_what_is_no_handler_are_refused() -> None:
    clients = tiny_clients()
    with pytest.raises(ValueError, match=r"strategy.handlers: two answer 'train.counts' messages"):
        SimulatedApp(clients, [COUNTS, replace(COUNTS)])
    assert by_kind([COUNTS, COUNTS]) == {KIND: COUNTS}
    with pytest.raises(
        ValueError, match=r"strategy.handlers: ABCMeta .*, expected a clients.handlers"
    ):
        SimulatedApp(clients, [Counting])  # type: ignore[list-item]


def test_a_message_without_a_handler_fails_by_name() -> None:
    said = "no handler answers 'train.counts' messages, only train, evaluate: a strategy names"
    with pytest.raises(QuorumLost, match=said):
        played(inline(None), Counting([]))


# --- what ships ---

HOW = Messenger(rule=rules.dml, optimizer=trainer().keywords["optimizer"], epochs=1, batch_size=8)
MADE = [train_targets(kl, {"epochs": 1}), train_received(HOW, "own")]
SHIPPED = [
    value
    for module in pkgutil.iter_modules(clients.handlers.__path__, "clients.handlers.")
    for value in vars(importlib.import_module(module.name)).values()
    if isinstance(value, Handler)
]
SHIPPED = [*{id(handler): handler for handler in [*SHIPPED, *MESSENGERS, *MADE]}.values()]


def test_all_that_ship_were_found() -> None:
    assert len(SHIPPED) == 2 + 1 + 3 + 6 + 1 + 3  # parameters, messengers, answers, peers, ...
    assert {handler.kind for handler in [*PARAMETERS, *HANDLERS, *MADE]} == {
        handler.kind for handler in SHIPPED
    }


@pytest.mark.parametrize("handler", SHIPPED, ids=[handler.kind for handler in SHIPPED])
def test_shipped_handlers_can_be_sent_and_say_what_they_read(handler: Handler) -> None:
    there = pickle.loads(pickle.dumps(handler))
    assert (there.kind, there.keys, there.records) == (handler.kind, handler.keys, handler.records)
    odd = RecordDict({"config": ConfigRecord({"learning-rate": 0.1})})
    [item] = SimulatedApp(tiny_clients(), [handler]).serve(
        [Message(odd, node_id_of(0), handler.kind)], [None]  # type: ignore[list-item]
    )  # fmt: skip
    assert f"key 'learning-rate' of a '{handler.kind}' request" in str(item)


def test_the_handlers_of_a_strategy_within_another_are_found() -> None:
    inner: Any = FedAvg()
    inner.handlers = (COUNTS,)
    assert told(Wrapped(inner, 1.0, 1.0, 1), "handlers") == (COUNTS,)


class Answering(ClientApp):
    """Somebody else's ClientApp, which answers our messages as ours does, but for client 1."""

    def __init__(self, ours: SimulatedApp, kind: str) -> None:
        super().__init__()
        self._ours, self._odd = ours, kind

    def __call__(self, message: Message, context: Any) -> Message:
        reply = self._ours(message, context)
        if (
            message.metadata.message_type == self._odd
            and str(context.node_config["partition-id"]) == "1"
        ):
            reply.content["more"] = MetricRecord({"x": 1.0})
        return reply


def test_replies_of_anyones_program_are_held_to_the_strategys_handlers(pool: Any) -> None:
    federation, strategy = tiny_clients(), Counting()
    app = Answering(SimulatedApp(federation, strategy.handlers), KIND)
    grid = PoolGrid(pool, federation.architectures)
    for handlers, failed in ((strategy.handlers, {1: "sends 'more', which was not asked for"}),
                             ((), {})):  # fmt: skip
        pool.load(app, handlers)
        assert failures(run_ours(pool, federation, strategy, grid=grid)) == failed
