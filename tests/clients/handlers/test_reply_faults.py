"""Every reason for which a reply is rejected."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, Message, MetricRecord, RecordDict

from clients.messages.arrays import write_arrays
from clients.messages.replies import PredictionReply
from clients.messages.requests import PredictionRequest, crc32_of, node_id_of
from clients.models.discriminator import DiscriminatorRecipe
from sim.workers.process_setup import assume_task_identity
from tests.predictions import (
    ANSWER,
    IDS,
    INFINITY,
    MASK,
    NAN,
    OWN_PROBS,
    PLAIN,
    WEIGHTS,
    answer,
    ask,
    fault_of,
)


@pytest.fixture(autouse=True)
def _identity() -> None:
    assume_task_identity(1)


# --- screening ---


WITH_RECIPE = replace(PLAIN, recipe=DiscriminatorRecipe())
WITH_PROBS = replace(ANSWER, own_probs=OWN_PROBS)


def test_good_replies_pass() -> None:
    assert fault_of(ask(), answer()) is None
    assert fault_of(ask(), answer(replace(ANSWER, mask=MASK))) is None
    assert fault_of(ask(WITH_RECIPE), answer(WITH_PROBS)) is None
    whole = replace(PLAIN, proxy_ids=None)
    reply = replace(ANSWER, inputs_crc32=0)
    assert fault_of(ask(whole, kind="evaluate"), answer(reply)) is None


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.copy()
    changed.flat[0] = value
    return changed


@pytest.mark.parametrize(
    ("request_", "reply", "changes", "reason"),
    [
        (PLAIN, ANSWER, {"server_round": 1}, "'server-round' is 1, expected 2"),
        (PLAIN, ANSWER, {"client_id": 3}, "'client-id' is 3, expected 0"),
        (PLAIN, ANSWER, {"inputs_crc32": crc32_of(IDS[::-1])}, "'inputs-crc32' is"),
        (PLAIN, ANSWER, {"num_examples": 0}, "'metrics/num-examples' is 0"),
        (PLAIN, ANSWER, {"num_examples": -3}, "'metrics/num-examples' is -3"),
        (PLAIN, ANSWER, {"logits": ANSWER.logits[:2]}, r"logits' is float32 \(2, 2\), expected"),
        (PLAIN, ANSWER, {"logits": ANSWER.logits.T}, r"logits' is float32 \(2, 3\)"),
        (PLAIN, ANSWER, {"logits": ANSWER.logits.astype(np.float64)}, "is float64"),
        (PLAIN, ANSWER, {"logits": with_value(ANSWER.logits, NAN)}, "logits' has 1 of 6"),
        (PLAIN, ANSWER, {"logits": with_value(ANSWER.logits, -INFINITY)}, "logits' has 1 of 6"),
        (WITH_RECIPE, ANSWER, {}, "own-probs missing"),
        (PLAIN, WITH_PROBS, {}, "own-probs sent but not asked for"),
        (WITH_RECIPE, ANSWER, {"own_probs": OWN_PROBS[:2]}, r"own-probs' is float32 \(2,\)"),
        (WITH_RECIPE, ANSWER, {"own_probs": OWN_PROBS.astype(np.float64)}, "is float64"),
        (WITH_RECIPE, ANSWER, {"own_probs": with_value(OWN_PROBS, -1e-3)}, r"leaves \[0, 1\]"),
        (WITH_RECIPE, ANSWER, {"own_probs": with_value(OWN_PROBS, 1.001)}, r"leaves \[0, 1\]"),
        (WITH_RECIPE, ANSWER, {"own_probs": with_value(OWN_PROBS, NAN)}, "not finite"),
        (PLAIN, ANSWER, {"mask": MASK.astype(np.uint8)}, "mask' is uint8"),
        (PLAIN, ANSWER, {"mask": MASK[:2]}, r"mask' is bool \(2,\)"),
    ],
)
def test_a_bad_prediction_is_rejected_with_its_reason(
    request_: PredictionRequest, reply: PredictionReply, changes: dict[str, Any], reason: str
) -> None:
    found = fault_of(ask(request_), answer(replace(reply, **changes)))
    assert found is not None
    assert re.search(reason, found)


@pytest.mark.parametrize("record", ["config", "predictions", "metrics"])
def test_a_prediction_without_a_record_is_rejected(record: str) -> None:
    reply = answer()
    del reply.content[record]
    assert fault_of(ask(), reply) == f"a predictions reply lacks '{record}'"


@pytest.mark.parametrize("sent", [NAN, INFINITY, [1, 2]], ids=str)
def test_a_size_that_is_no_number_is_rejected_and_ends_nothing(sent: Any) -> None:
    reply = answer()
    reply.content["metrics"]["num-examples"] = sent
    assert fault_of(ask(), reply) is not None


@pytest.mark.parametrize("stype", ["numpy.ndarray", "pickle"])
def test_an_array_that_cannot_be_read_is_rejected_and_ends_nothing(stype: str) -> None:
    reply = answer()
    reply.content["predictions"]["logits"] = Array("float32", (3, 2), stype, b"no array")
    assert fault_of(ask(), reply) is not None


# --- screening of parameters: Flower's own convention ---


def exchange(arrays: dict[str, np.ndarray], num_examples: float = 40) -> tuple[Message, Message]:
    """Ask for training of WEIGHTS as Flower's FedAvg does; answer with these arrays."""
    config = ConfigRecord({"server-round": 1})
    asked = RecordDict({"arrays": write_arrays(WEIGHTS), "config": config})
    metrics = MetricRecord({"num-examples": num_examples, "train-loss": 0.5})
    given = RecordDict({"arrays": write_arrays(arrays), "metrics": metrics})
    request = Message(asked, dst_node_id=node_id_of(0), message_type="train")
    return request, Message(given, reply_to=request)


def test_parameters_of_the_same_shapes_pass() -> None:
    assert fault_of(*exchange({name: value + 1 for name, value in WEIGHTS.items()})) is None


def test_a_foreign_reply_of_other_arrays_or_none_passes() -> None:
    assert fault_of(*exchange({"sketch": np.zeros(5)})) is None
    request, reply = exchange(WEIGHTS)
    del reply.content["arrays"]
    assert fault_of(request, reply) is None
    assert fault_of(request, Message(RecordDict(), reply_to=request)) is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"w": with_value(WEIGHTS["w"], NAN)}, "'arrays/w' has 1 of 6 values that are not finite"),
        ({"w": WEIGHTS["w"].T}, "'arrays/w' has shape (3, 2), expected (2, 3)"),
        ({"count": np.array([3])}, "'arrays/count' has shape (1,), expected ()"),
    ],
)
def test_bad_parameters_are_rejected_with_their_reason(
    changed: dict[str, np.ndarray], reason: str
) -> None:
    assert fault_of(*exchange(WEIGHTS | changed)) == f"array {reason}"


@pytest.mark.parametrize("num_examples", [0, -5, NAN, INFINITY])
def test_parameters_without_a_positive_finite_mass_are_rejected(num_examples: float) -> None:
    # Flower's strategies weigh by it: NaN reaches every parameter, -5 points the other way.
    found = fault_of(*exchange(WEIGHTS, num_examples))
    assert found is not None
    assert "num-examples" in found
