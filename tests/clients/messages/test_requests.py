"""Messages there and back, and how a cohort's are read."""

import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict

from clients.messages.arrays import write_arrays
from clients.messages.replies import PredictionReply, read_predictions, read_reply, write_reply
from clients.messages.requests import (
    PredictionRequest,
    client_id_of,
    crc32_of,
    node_id_of,
    read_request,
    write_request,
)
from clients.messages.sizes import size_bytes
from sim.workers.process_setup import assume_task_identity
from tests.predictions import ANSWER, FULL, IDS, MASK, OWN_PROBS, PLAIN, WEIGHTS, answer, ask


@pytest.fixture(autouse=True)
def _identity() -> None:
    assume_task_identity(1)


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
