"""Messages there and back, and every reason for which a reply is rejected."""

import re
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, Error, Message, MetricRecord, RecordDict

from clients.handlers.screening import fault_of
from clients.messages.arrays import write_arrays
from clients.messages.requests import (
    EVALUATE_PREDICTIONS,
    TRAIN_PREDICTIONS,
    PredictionReply,
    PredictionRequest,
    client_id_of,
    crc32_of,
    node_id_of,
    read_predictions,
    read_reply,
    read_request,
    write_reply,
    write_request,
)
from clients.messages.sizes import size_bytes
from clients.models.discriminator import DiscriminatorRecipe
from sim.workers.processes import assume_task_identity

IDS = np.array([4, 0, 9], dtype=np.int64)
WEIGHTS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "count": np.array(3)}
NAN, INFINITY = float("nan"), float("inf")

PLAIN = PredictionRequest(server_round=2, num_inputs=3, num_classes=2, proxy_ids=IDS)
FULL = PredictionRequest(
    server_round=7,
    num_inputs=3,
    num_classes=2,
    proxy_ids=IDS,
    negative_ids=np.array([1, 2], dtype=np.int64),
    recipe=DiscriminatorRecipe("pixels", balanced=True, l2=0.5),
    student=WEIGHTS,
    digest_epochs=3,
    temperature=2.5,
)
ANSWER = PredictionReply(
    server_round=2,
    client_id=0,
    inputs_crc32=crc32_of(IDS),
    num_examples=40,
    logits=np.arange(6, dtype=np.float32).reshape(3, 2),
    own_probs=None,
    mask=None,
    metrics={"train-loss": 0.25},
)
OWN_PROBS = np.array([0.0, 0.5, 1.0], dtype=np.float32)
MASK = np.array([True, False, True])


@pytest.fixture(autouse=True)
def _identity() -> None:
    assume_task_identity(1)


def ask(request: PredictionRequest = PLAIN, client: int = 0, kind: str = "train") -> Message:
    kinds = {"train": TRAIN_PREDICTIONS, "evaluate": EVALUATE_PREDICTIONS}
    return Message(write_request(request), dst_node_id=node_id_of(client), message_type=kinds[kind])


def answer(reply: PredictionReply = ANSWER, client: int = 0) -> Message:
    return Message(write_reply(reply), reply_to=ask(client=client))


def same(one: Any, other: Any) -> bool:
    """Compare values, arrays bit for bit."""
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and (one == other).all()
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other) and type(one) is type(other)


# --- round trips ---


@pytest.mark.parametrize("client", [0, 1, 12_345])
def test_node_ids_are_legible_and_stand_for_one_client(client: int) -> None:
    assert node_id_of(client) == 1_000_000_000 + client
    assert client_id_of(node_id_of(client)) == client


@pytest.mark.parametrize(
    "request_",
    [
        PLAIN,
        FULL,
        replace(PLAIN, proxy_ids=None),
        replace(PLAIN, recipe=FULL.recipe),
        replace(FULL, proxy_ids=None, student=None),
    ],
    ids=["plain", "full", "test-set", "recipe-only", "negatives-only"],
)
def test_a_request_makes_a_round_trip(request_: PredictionRequest) -> None:
    assert same(vars(read_request(write_request(request_))), vars(request_))


@pytest.mark.parametrize(
    "reply",
    [ANSWER, replace(ANSWER, own_probs=OWN_PROBS, mask=MASK), replace(ANSWER, metrics={})],
    ids=["plain", "full", "no-metrics"],
)
def test_a_reply_makes_a_round_trip(reply: PredictionReply) -> None:
    assert same(vars(read_reply(write_reply(reply))), vars(reply))


@pytest.mark.parametrize("record", ["config", "predictions", "metrics"])
def test_a_reply_without_a_record_says_which(record: str) -> None:
    content = write_reply(ANSWER)
    del content[record]
    with pytest.raises(ValueError, match=f"lacks '{record}'"):
        read_reply(content)


def test_the_fingerprint_of_ids_depends_on_values_and_order_not_on_dtype() -> None:
    assert crc32_of(None) == 0
    assert crc32_of(IDS) == zlib.crc32(IDS.astype("<i8").tobytes())
    assert crc32_of(IDS) == crc32_of(IDS.astype(np.int32))
    assert crc32_of(IDS) == crc32_of(np.repeat(IDS, 2)[::2])  # not contiguous
    assert len({crc32_of(ids) for ids in (IDS, IDS[::-1], IDS + 1, IDS[:2])}) == 4


def test_size_is_the_data_of_all_arrays_plus_the_names_and_numbers() -> None:
    arrays = write_arrays(WEIGHTS)
    data = sum(len(array.data) for array in arrays.values())
    assert data >= sum(value.nbytes for value in WEIGHTS.values())  # headers included
    content = RecordDict({"arrays": arrays})
    assert size_bytes(content) == data + len("w") + len("count")
    # A config of two integers of 8 bytes, a metric of one float of 8
    content["config"] = ConfigRecord({"ab": 1, "c": 2})
    content["metrics"] = MetricRecord({"loss": 0.5})
    assert size_bytes(content) == data + len("wcount" + "abc" + "loss") + 3 * 8


# --- reading a cohort ---


def test_predictions_are_sorted_by_client_whatever_the_order_of_arrival() -> None:
    replies = [
        answer(replace(ANSWER, num_examples=10 + c, logits=ANSWER.logits + c), c) for c in range(4)
    ]
    for order in ([0, 1, 2, 3], [2, 0, 3, 1], [3, 2, 1, 0]):
        teachers = read_predictions([replies[i] for i in order])
        assert teachers is not None
        assert teachers.client_ids == (0, 1, 2, 3)
        assert teachers.num_examples.tolist() == [10, 11, 12, 13]
        assert teachers.logits[:, 0, 0].tolist() == [0, 1, 2, 3]
        assert teachers.logits.shape == (4, 3, 2)
        assert teachers.own_probs is None


def test_error_replies_are_skipped() -> None:
    broken = Message(Error(2, "raised"), reply_to=ask(client=0))
    teachers = read_predictions([broken, answer(client=5)])
    assert teachers is not None
    assert teachers.client_ids == (5,)


def test_without_a_usable_reply_there_are_no_predictions() -> None:
    assert read_predictions([]) is None
    assert read_predictions([Message(Error(2, "raised"), reply_to=ask())]) is None


def test_a_missing_mask_means_all() -> None:
    masked = replace(ANSWER, mask=MASK, own_probs=OWN_PROBS)
    open_ = replace(ANSWER, own_probs=OWN_PROBS)
    teachers = read_predictions([answer(masked, 0), answer(open_, 1)])
    assert teachers is not None
    assert teachers.mask.tolist() == [[True, False, True], [True, True, True]]
    assert teachers.own_probs is not None
    assert teachers.own_probs.tolist() == [[0.0, 0.5, 1.0]] * 2


@pytest.mark.parametrize(
    "other", [replace(ANSWER, logits=ANSWER.logits[:2]), replace(ANSWER, own_probs=OWN_PROBS)]
)
def test_answers_that_disagree_cannot_be_stacked(other: PredictionReply) -> None:
    with pytest.raises(ValueError, match="replies disagree"):
        read_predictions([answer(client=0), answer(other, 1)])


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
