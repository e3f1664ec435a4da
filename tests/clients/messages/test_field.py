"""A field of answers: its shape, how it travels, what is refused, and what a client says by it."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message

from clients.handlers.predictions import predictions
from clients.handlers.reply_faults import fault_of
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.codecs import Precision
from clients.messages.field import Field
from clients.messages.field_source import Asked, key_of
from clients.messages.field_wire import wire_name
from clients.messages.replies import (
    PredictionReply,
    no_stream,
    read_predictions,
    read_reply,
    write_reply,
)
from clients.messages.requests import PredictionRequest, read_request
from clients.messages.shipped_fields import check_names
from sim.engine.grid import assume_task_identity
from tests.predictions import ANSWER, PLAIN, ask

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _identity() -> None:
    assume_task_identity(1)


def energy(about: Asked) -> torch.Tensor:
    return -about.logits.logsumexp(-1)


# --- how it travels ---


@pytest.mark.parametrize("codec", ["float32", "float16", "uint8"])
def test_a_field_goes_there_and_back(codec: str) -> None:
    array = RNG.standard_normal((3, 2, 5)).astype(np.float32)
    field = Field(energy, ("N", None, 5), codec=codec)
    sent = field.encode("my_field", array, no_stream)
    names = {"uint8": {"my-field.codes", "my-field.ranges"}}.get(codec, {"my-field"})
    assert set(sent) == names
    back = field.decode("my_field", sent).numpy()
    np.testing.assert_allclose(back, array, atol=0 if codec == "float32" else 0.02)
    assert field.fault_in("my_field", sent, 3, 4) is None
    assert (field.decode("my_field", sent, np.array([2, 0])).numpy() == back[[2, 0]]).all()
    assert all(field.sends("my_field", name) for name in names)
    assert not field.sends("my_field", "my-fields")


def test_streams_of_names_and_inputs_are_apart() -> None:
    keys = {key_of(name, crc32) for name in ("a", "b", "a.codec") for crc32 in (0, 7)}
    assert len(keys) == 6


# --- what is refused ---


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((3, 2), np.float32), None),
        (np.zeros((2, 2), np.float32), r"is float32 \(2, 2\), expected float32 \(3, 2\)"),
        (np.zeros((3, 2)), "is float64"),
        (np.full((3, 2), 1e16, np.float32), "goes beyond 1e+15"),
        (np.full((3, 2), np.nan, np.float32), "goes beyond 1e+15"),
        (np.full((3, 2), -1, np.float32), "'predictions/x' is below 0"),
    ],
)
def test_what_a_client_sends_is_looked_at(array: np.ndarray, reason: str | None) -> None:
    field = Field(energy, ("N", 2), fault=lambda a: "is below 0" if (a < 0).any() else None)
    found = field.fault_in("x", {"x": array}, 3, 4)
    assert found is None if reason is None else re.search(reason.replace("+", r"\+"), str(found))


def test_one_number_of_a_client_is_a_field_too_and_faults_cannot_write_into_messages() -> None:
    field = Field(energy, ())
    sent = field.encode("x", np.asarray(np.float32(3)), no_stream)
    assert field.fault_in("x", sent, 3, 4) is None
    assert float(field.decode("x", sent)) == 3

    def meddling(array: np.ndarray) -> str | None:
        array[:] = 7
        return None

    array = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="read-only"):
        Field(energy, fault=meddling).fault_in("x", {"x": array}, 3, 4)
    assert not array.any()


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "bool"])
def test_made_up_numbers_of_all_kinds_differ(dtype: str) -> None:
    made = Field(energy, ("N",), dtype=dtype).made_up(3, 24, 4, largest=1e2)
    assert made.shape == (3, 24)
    assert len(set(made.flatten().tolist())) > (1 if dtype == "bool" else 8)


def test_whole_numbers_may_be_anything_of_their_dtype() -> None:
    field = Field(energy, ("N",), dtype="int64")
    assert field.fault_in("x", {"x": np.full(3, 2**62)}, 3, 4) is None
    assert "is int32" in str(field.fault_in("x", {"x": np.zeros(3, np.int32)}, 3, 4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": "N"}, "shape is 'N', expected a tuple"),
        ({"shape": ("C", "N")}, 'expected "N" or "R" \\(first\\)'),
        ({"shape": ("N", 0)}, "numbers >= 1"),
        ({"shape": ("N", True)}, "numbers >= 1"),
        ({"shape": ("B",)}, "expected"),
        ({"taps": "penultimate"}, "taps is 'penultimate', expected a tuple"),
        ({"dtype": "str"}, "dtype 'str': expected one of"),
        ({"dtype": ">f4"}, "dtype '>f4': expected one of"),
        ({"codec": "int4"}, "codec 'int4': expected one of"),
        ({"codec": 7}, "codec 7: expected one of float32, float16, uint8, or an object with"),
        ({"codec": "float16", "dtype": "int64"}, "'float16' is for float32, not int64"),
        ({"codec": "uint8"}, "'uint8' is for rows"),
    ],
)
def test_a_field_that_is_none_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Field(energy, **changes)


@pytest.mark.parametrize(
    "name", ["logits", "own_probs", "mask", "weights", "start", "a-b", "", "a.b"]
)
def test_a_name_that_is_taken_or_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"strategy.ask.{name}: expected a name")):
        check_names({name: Field(energy)}, "strategy.ask")


def test_what_is_no_field_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match=r"strategy\.ask\.energy: .*expected a clients.messages"):
        check_names({"energy": energy}, "strategy.ask")  # type: ignore[dict-item]


# --- in messages ---

KNOWN = {"energy": Field(energy), "maps": Field(energy, ("N", 2, 2), codec="float16")}
MORE = {"energy": np.ones(3, np.float32), "maps": np.ones((3, 2, 2), np.float32)}


def judged(reply: PredictionReply, request: PredictionRequest = PLAIN, drop: str = "") -> Any:
    train, _ = predictions(KNOWN)
    message = ask(replace(request, fields=("energy", "maps")))
    content = write_reply(reply, KNOWN)
    kept = {k: v for k, v in read_arrays(content["predictions"]).items() if k != drop}
    content["predictions"] = write_arrays(kept)
    return fault_of(message, Message(content, reply_to=message), train)


def test_a_message_carries_fields_and_the_screen_knows_them() -> None:
    reply = replace(ANSWER, fields=MORE)
    assert judged(reply) is None
    assert judged(reply, drop="maps") == "maps missing"
    assert judged(ANSWER) == "energy missing"
    assert "'predictions/maps' is float16 (3, 2, 1)" in judged(
        replace(reply, fields=MORE | {"maps": MORE["maps"][:, :, :1]})
    )
    read = read_reply(write_reply(reply, KNOWN), KNOWN)
    assert {name: array.tolist() for name, array in read.fields.items()} == {
        name: array.tolist() for name, array in MORE.items()
    }


def test_fields_that_were_not_asked_for_are_rejected() -> None:
    train, _ = predictions(KNOWN)
    content = write_reply(replace(ANSWER, fields=MORE), KNOWN)
    found = fault_of(ask(PLAIN), Message(content, reply_to=ask(PLAIN)), train)
    assert found == "energy sent but not asked for"


def test_a_request_names_the_fields_it_asks_for() -> None:
    request = replace(PLAIN, fields=("maps",))
    assert read_request(ask(request).content).fields == ("maps",)
    assert list(request.asks(KNOWN)) == ["logits", "maps"]
    with pytest.raises(ValueError, match="field 'maps': asked for, and known are energy"):
        request.asks({"energy": KNOWN["energy"]})
    assert "fields" not in ask(PLAIN).content["config"]  # nothing more is sent than before


def test_answers_are_stacked_where_their_shapes_agree() -> None:
    ragged = {"any": Field(energy, ("N", None)), "own": Field(energy, (None,))}
    replies = []
    for k, width in enumerate((2, 2, 3)):
        more = {"any": np.full((3, width), k, np.float32), "own": np.full(4, k, np.float32)}
        reply = replace(ANSWER, client_id=k, fields=more)
        replies.append(Message(write_reply(reply, ragged), reply_to=ask(client=k)))
    two, three = read_predictions(replies[:2], ragged), read_predictions(replies, ragged)
    assert two is not None
    assert three is not None
    assert two["any"].shape == (2, 3, 2)
    assert two.at(slice(0, 2))["any"].shape == (2, 2, 2)
    assert two.at(slice(0, 2))["own"].shape == (2, 4)
    with pytest.raises(ValueError, match=r"clients' 'any' are of unlike shapes, .*answers.of\(k\)"):
        three["any"]
    assert three.of(2)["any"].tolist() == [[[2.0] * 3] * 3]
    assert three.of(2).client_ids == (2,)
    assert three.of(2)["own"].tolist() == [[2.0] * 4]
    assert three.at(slice(1, 2)).of(2)["any"].shape == (1, 1, 3)
    with pytest.raises(ValueError, match="answers have no 'more', only logits, any, own: ask"):
        three["more"]


def test_names_on_the_wire_and_the_precision_of_parts() -> None:
    assert wire_name("own_probs", "") == "own-probs"
    assert wire_name("class_means", "codes") == "class-means.codes"
    assert Precision("uint8").expected((3, None)) == {
        "codes": ((3, None), np.uint8),
        "ranges": ((3, 2), np.float32),
    }
