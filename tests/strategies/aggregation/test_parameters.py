"""Means of parameters, each with its like."""

from functools import partial
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict

from clients.messages.accumulator import Reducer, part_message
from clients.messages.replies import PredictionReply, write_reply
from clients.messages.requests import node_id_of
from clients.models import mlp
from strategies.aggregation.parameters import (
    WeightedSum,
    averaging_too,
    fault_in_parameters,
    forms_of,
    means_of,
)
from tests.federations import tiny_clients

FORM = {"w": "float32[2]", "n": "int64[]"}
FAULT = partial(
    fault_in_parameters, architectures=["a", "a", "b", "b"], forms={"a": FORM, "b": FORM}
)


def test_a_weighted_sum_is_exact_where_all_are_equal_and_keeps_dtypes() -> None:
    like = {"w": np.array([0.1, -3.3], np.float32), "h": np.array([0.1], np.float16),
            "n": np.array(7)}  # fmt: skip
    sums = WeightedSum()
    for weight in (3, 0.1, 7e5):
        sums.add(like, weight)
    for name, value in sums.mean().items():
        assert value.dtype == like[name].dtype
        np.testing.assert_array_equal(value, like[name])
    sums = WeightedSum()
    sums.add(like, 0.25)
    sums.add({"n": np.array(9)}, 0.75)
    assert (sums.sum()["n"], sums.weight) == (8, 1.0)  # 8.5 to even
    assert sums.sum()["w"].dtype == np.float32
    np.testing.assert_array_equal(sums.sum()["w"], like["w"] / 4)
    assert like["w"][0] == np.float32(0.1)  # nobody's own array is added to


def reply_with(parameters: Any, client_id: int, architecture: str, examples: int) -> Message:
    reply = PredictionReply(
        server_round=1,
        client_id=client_id,
        inputs_crc32=0,
        num_examples=examples,
        logits=np.zeros((2, 4), dtype=np.float32),
        own_probs=None,
        mask=None,
        metrics={},
        parameters=parameters,
        architecture=architecture,
    )
    request = Message(RecordDict(), dst_node_id=node_id_of(client_id), message_type="train")
    return Message(write_reply(reply), reply_to=request)


def three() -> list[Message]:
    def parameters(value: float, count: int) -> Any:
        return {"w": np.full(2, value, dtype=np.float32), "n": np.array(count)}

    return [
        reply_with(parameters(1.0, 3), 0, "a", 10),
        reply_with(parameters(4.0, 6), 1, "a", 20),
        reply_with(parameters(7.0, 9), 2, "b", 5),
        reply_with(None, 3, "b", 500),
    ]


def test_parameters_are_averaged_each_with_its_like_weighed_by_examples() -> None:
    means = means_of(three(), False, FAULT)
    np.testing.assert_allclose(means["a"]["w"], 3.0)
    assert means["a"]["n"] == 5
    assert means["a"]["n"].dtype == np.int64
    np.testing.assert_allclose(means["b"]["w"], 7.0)
    alone = means_of(three(), True, FAULT)
    assert sorted(alone) == ["a-0", "a-1", "b-2"]
    np.testing.assert_allclose(alone["a-1"]["w"], 4.0)


class Nothing:
    """Adds up no answers."""

    def add(self, content: RecordDict) -> None: ...

    merge = add

    def part(self) -> RecordDict:
        return RecordDict()


def test_folded_in_parts_the_means_are_the_same() -> None:
    reducer = averaging_too(Reducer(Nothing), by_client=False, fault=FAULT)
    replies = three()
    contents = [message.content for message in replies]
    assert isinstance(reducer, Reducer)
    part = reducer.merge([reducer.fold(contents[:1]), reducer.fold(contents[1:])])
    folded = means_of([part_message(part, replies[0])], False, FAULT)
    for key, mean in means_of(replies, False, FAULT).items():
        for name, value in mean.items():
            np.testing.assert_allclose(folded[key][name], value, rtol=1e-6)


def test_parameters_that_are_not_the_clients_own_kind_are_named() -> None:
    good, _, other, none = three()
    assert FAULT(good, good) is None
    assert FAULT(none, none) is None
    liar = partial(FAULT, architectures=["a", "a", "a"])
    assert liar(other, other) == "parameters of architecture 'b', expected of 'a'"
    stranger = partial(FAULT, architectures=["a"])
    assert "expected of 'nobody'" in str(stranger(other, other))
    for array, found in (
        (np.zeros(3, dtype=np.float32), "float32[3]"),
        (np.zeros(2, dtype=np.float64), "float64[2]"),
    ):
        wrong = reply_with({"w": array, "n": np.array(1)}, 0, "a", 1)
        assert FAULT(wrong, wrong) == f"'w' is {found}, expected float32[2]"
    models = {"m": partial(mlp, hidden=(3,))}
    forms = forms_of(models, tiny_clients().splits.test)
    assert forms["m"]["classifier.bias"] == "float32[4]"
