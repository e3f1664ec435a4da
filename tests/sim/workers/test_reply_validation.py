"""What one client returns or raises is judged in one place: named, and the others go on."""

import os
import signal
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord
from flwr.app import RecordDict as Content
from flwr.serverapp.strategy import FedAvg, FedMedian, QFedAvg, Strategy

from clients.app import SimulatedApp
from clients.messages.arrays import write_arrays
from clients.messages.sizes import size_bytes
from sim.engine.global_model_check import BadModel
from sim.engine.grid import PoolGrid
from sim.engine.quorum import QuorumLost
from sim.workers.reply_validation import MAX_REASON
from tests.federations import Run, inline, run_foreign, run_ours, tiny_clients
from tests.mutations import raw
from tests.odd_errors import (
    Ending,
    Mute,
    Nameless,
    OddError,
    Silent,
    Stubborn,
    Texted,
    Unbound,
    Unread,
)

START = ArrayRecord({"w": Array(np.zeros(2, np.float32)), "b": Array(np.zeros(3, np.float32))})


class OneOdd:
    """Client k answers k + 1 in every place; client 1 answers what `how` makes of that."""

    def __init__(self, how: Any) -> None:
        self.how = how

    def __call__(self, message: Message, context: Context) -> Any:
        client = int(context.node_config["partition-id"])
        arrays = {"w": np.full(2, client + 1, np.float32), "b": np.full(3, client + 1, np.float32)}
        metrics = MetricRecord({"num-examples": 1, "train-loss": 0.5})
        content = Content({"metrics": metrics})
        if message.metadata.message_type == "train":
            content["arrays"] = write_arrays(arrays)
        reply = Message(content, reply_to=message)
        odd = client == 1 and message.metadata.message_type == "train"
        return self.how(reply) if odd else reply


def put(record: str, key: str, value: Any) -> Any:
    def how(reply: Message) -> Message:
        reply.content[record].__dict__["_data"][key] = value
        return reply

    return how


def add(name: str, record: Any) -> Any:
    def how(reply: Message) -> Message:
        reply.content[name] = record
        return reply

    return how


def arrays(function: Any) -> Any:
    def how(reply: Message) -> Message:
        record = reply.content.array_records["arrays"]
        reply.content["arrays"] = ArrayRecord({k: function(a.numpy()) for k, a in record.items()})
        return reply

    return how


def throw(error: BaseException) -> Any:
    def how(reply: Message) -> Message:
        raise error

    return how


def run(how: Any, strategy: Strategy | None = None, **options: Any) -> Run:
    return run_foreign(inline(OneOdd(how)), strategy or FedAvg(), START, quorum=0.3, **options)


def refused(how: Any, strategy: Strategy | None = None) -> str:
    """Return why client 1 was refused; the others' mean is there."""
    ran = run(how, strategy)
    failed = [e for e in ran.reports[0].exchanges if e.failure]
    assert [e.client_id for e in failed] == [1]
    assert len(failed[0].failure) < MAX_REASON + 40
    assert failed[0].failure.isprintable()
    failed[0].traceback.encode()
    for array in ran.parameters.values():
        np.testing.assert_allclose(array, (1 + 3 + 4) / 3, rtol=1e-6)
    return failed[0].failure


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (put("metrics", "num-examples", 1e-300), "a whole number from 1 to 1e+12"),
        (put("metrics", "num-examples", 0.5), "a whole number from 1 to 1e+12"),
        (put("metrics", "num-examples", [3]), "a whole number from 1 to 1e+12"),
        (put("metrics", "train-loss", "x"), "holds str, expected numbers"),
        (put("metrics", "train-loss", True), "holds bool, expected numbers"),
        (put("metrics", "train-loss", 10**400), "goes beyond 1e+30"),
        (put("metrics", "\ud800", 1), "is no name"),
        (put("metrics", "k" * 9999, 1), "is no name"),
        (add("metrics", ConfigRecord({"num-examples": 1})), "of ConfigRecord, expected Metric"),
        (add("metrics", write_arrays({"num-examples": np.ones(1)})), "of ArrayRecord, expected"),
        (add("config", MetricRecord({"a": 1})), "of MetricRecord, expected ConfigRecord"),
        (add("note", ConfigRecord({"a": 10**4000})), "an integer that 64 bits do not"),
        (add("other", write_arrays({"x": np.zeros(2)})), "not named as the other clients' are"),
        (arrays(lambda a: raw(a.astype(np.complex64))), "dtype complex64, expected one of"),
        (arrays(lambda a: raw(np.full(a.shape, "x"))), "dtype <U1"),
        (arrays(lambda a: raw(np.zeros(a.shape, "datetime64[s]"))), "dtype datetime64"),
        (arrays(lambda a: raw(np.zeros(a.shape, [("a", "f4")]))), "dtype [('a'"),
        (arrays(lambda a: raw(a.astype(">f4"))), "dtype >f4"),
        (arrays(lambda a: raw(a.astype(np.int8))), "dtype int8, expected float32"),
        (arrays(lambda a: raw(a > 0)), "dtype bool, expected float32"),
        (arrays(lambda a: raw(np.full(a.shape, 3e38, np.float32))), "goes beyond 1e+15"),
        (arrays(lambda a: raw(a, dtype="float64")), "says that it is ('float64'"),
        (arrays(lambda a: raw(a, shape=(99,))), "says that it is"),
        (arrays(lambda a: raw(b"no array")), "cannot be read"),
        (lambda reply: None, "returned NoneType, expected a Message"),
        (lambda reply: ValueError("handed over"), "ValueError: handed over"),
        (lambda reply: Message(Error(0, "r" * 10**6), reply_to=reply), "rrr ... (20004 in all)"),
        (throw(KeyboardInterrupt()), "KeyboardInterrupt"),
        (throw(GeneratorExit()), "GeneratorExit"),
        (throw(StopIteration()), "StopIteration"),
        (throw(OddError("x")), "OddError: x"),
        (throw(Silent()), "Silent: its text cannot be read"),
        (throw(Mute()), "Mute: its text cannot be read"),
        (throw(Stubborn()), "Stubborn: its text cannot be read"),
        (throw(Nameless("x")), "Nameless: x"),
        (throw(Texted()), "Texted: odd"),
        (throw(Unread()), "Unread: odd"),
        (lambda reply: Unbound(), "cannot be read: RuntimeError: unbound"),
        (add("metrics", Ending({"num-examples": 3})), "cannot be read: SystemExit: 1"),
        (throw(ValueError("e" * 10**6)), "eee ... ("),
        (throw(ValueError("\ud800")), "ValueError: ?"),
    ],
)
def test_an_odd_answer_is_refused_by_name_and_the_others_are_averaged(
    how: Any, reason: str
) -> None:
    assert reason in refused(how)


def test_a_reply_without_content_or_to_another_message_is_refused() -> None:
    def empty(reply: Message) -> Message:
        reply.__dict__["_content"] = None
        return reply

    def elsewhere(reply: Message) -> Message:
        reply.metadata.__dict__["_reply_to_message_id"] = "1-3-0"
        return reply

    assert "neither content nor an error" in refused(empty)
    assert "answers message '1-3-0', which is another one" in refused(elsewhere)


@pytest.mark.parametrize("value", ["", [], b"", [""], True])
def test_an_empty_text_or_list_ends_nothing_and_is_measured(value: Any) -> None:
    ran = run(add("note", ConfigRecord({"note": value})))
    assert not [e for e in ran.reports[0].exchanges if e.failure]


def test_sizes_are_those_that_flower_counts_and_empty_values_weigh_nothing() -> None:
    config = ConfigRecord({"a": 1, "bc": "text", "d": [1.0, 2.0], "e": [b"xy"], "f": True})
    content = Content({"c": config, "m": MetricRecord({"l": [1, 2]}), "w": START})
    assert size_bytes(content) == sum(record.count_bytes() for record in content.values())
    assert size_bytes(Content({"c": ConfigRecord({"a": "", "bc": []})})) == 3


def test_metrics_of_another_kind_are_refused_where_flower_would_fail_in_the_middle() -> None:
    how = put("metrics", "train-loss", [1.0, 2.0])
    assert "not of the kinds and shapes" in refused(how)
    ran = run(how, FedMedian())  # empties the records that it reads before it fails
    assert [e.client_id for e in ran.reports[0].exchanges if e.failure] == [1]
    np.testing.assert_allclose(ran.parameters["w"], 3)


def test_arrays_in_another_order_are_put_right() -> None:
    def turned(reply: Message) -> Message:
        record = reply.content.array_records["arrays"]
        reply.content["arrays"] = ArrayRecord({k: record[k] for k in ("b", "w")})
        return reply

    ran = run(turned, FedMedian())
    assert not [e for e in ran.reports[0].exchanges if e.failure]
    assert {k: a.shape for k, a in ran.parameters.items()} == {"w": (2,), "b": (3,)}


def test_a_loss_whose_powers_are_no_weights_is_refused_where_it_is_a_weight() -> None:
    strategy = QFedAvg(client_learning_rate=0.1, train_loss_key="train-loss")
    ran = run(put("metrics", "train-loss", -1.0), strategy)
    failed = [e for e in ran.reports[0].exchanges if e.failure]
    assert [e.client_id for e in failed] == [1]
    assert "expected a number >= 0: replies are weighed by its powers" in failed[0].failure
    assert not [
        e for e in run(put("metrics", "train-loss", -1.0)).reports[0].exchanges if e.failure
    ]


def test_replies_that_all_lack_the_weight_end_the_run_in_a_line() -> None:
    with pytest.raises(QuorumLost, match="FedAvg refuses all replies: .*`mass`"):
        run(lambda reply: reply, FedAvg(weighted_by_key="mass"))


# --- groups, and the user's own ctrl-C ---


class Interrupting(SimulatedApp):
    """Breaks off in the middle of a group, as a network that raises KeyboardInterrupt does."""

    def serve(self, requests: Any, contexts: Any, device: str = "cpu") -> Any:
        for context, answer in zip(
            contexts, super().serve(requests, contexts, device), strict=True
        ):
            if context.node_config["partition-id"] == 2:
                raise KeyboardInterrupt
            yield answer


def test_whoever_shares_a_group_with_a_client_that_breaks_it_off_is_innocent() -> None:
    clients = tiny_clients(5, architectures=["linear"] * 5)
    grid = PoolGrid(inline(Interrupting(clients)), clients.architectures, group_size=5)
    grid.begin_round(1)
    ran = run_ours(inline(Interrupting(clients)), clients, FedAvg(), grid=grid, quorum=0.3)
    failed = {(e.client_id, e.phase): e.failure for e in ran.reports[0].exchanges if e.failure}
    assert failed == dict.fromkeys([(2, "train"), (2, "evaluate")], "KeyboardInterrupt")


def test_ctrl_c_stops_the_run_even_if_a_client_swallows_it() -> None:
    def how(reply: Message) -> Message:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(10**6):
                pass
        except KeyboardInterrupt:
            pass
        return reply

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(how)
    assert signal.getsignal(signal.SIGINT) is before


class _Interrupting(MetricRecord):
    def items(self) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return super().items()


def test_ctrl_c_that_comes_while_an_answer_is_judged_stops_the_run() -> None:
    with pytest.raises(KeyboardInterrupt):
        run(add("metrics", _Interrupting({"num-examples": 1, "train-loss": 0.5})))


# --- what a strategy returned ---


class Returning(FedAvg):
    """FedAvg whose global model is something else."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        return self.model, None


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"w": np.array([1, np.nan]), "b": np.zeros(3)}, "1 of 2 values of array 'w' that are not"),
        ({"w": np.zeros(3), "b": np.zeros(3)}, "array 'w' of shape (3,), expected (2,)"),
        ({"w": np.zeros(2)}, "lacks array 'b'"),
        ({"w": np.zeros(2), "b": np.zeros(3), "c": np.zeros(1)}, "has a new array 'c'"),
    ],
)
def test_a_global_model_that_cannot_be_kept_ends_the_run_in_a_line(model: Any, reason: str) -> None:
    reports: list[Any] = []
    with pytest.raises(BadModel) as caught:
        run(lambda reply: reply, Returning(write_arrays(model)), report=reports.append)
    assert str(caught.value).startswith("strategy Returning, round 1: its global model ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(reports) == 1
