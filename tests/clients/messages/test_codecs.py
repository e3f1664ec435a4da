"""How answers travel: error bounds, bytes, what a receiver refuses, and no needless copy."""

import re
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from clients.handlers.predictions import TRAIN_PREDICTIONS
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.codecs import ANSWERS, Precision
from clients.messages.replies import PredictionReply, read_reply, write_reply
from clients.messages.requests import (
    PredictionRequest,
    crc32_of,
    node_id_of,
    read_request,
    write_request,
)
from clients.messages.sizes import size_bytes
from sim.engine.grid import assume_task_identity
from tests.predictions import fault_of

IDS = np.arange(7, dtype=np.int64)
LOGITS = (4 * np.random.default_rng(0).standard_normal((7, 5))).astype(np.float32)
each_kind = pytest.mark.parametrize("kind", ANSWERS)
tables = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(-(2.0**17), 2.0**17, width=32),
)


@pytest.fixture(autouse=True)
def _identity() -> None:
    assume_task_identity(1)


def back(logits: np.ndarray, kind: str) -> np.ndarray:
    return Precision(kind).array(Precision(kind).parts(logits)).numpy()


def reply(kind: str, logits: np.ndarray = LOGITS) -> PredictionReply:
    return PredictionReply(2, 0, crc32_of(IDS), 40, logits, None, None, {}, kind)


def ask(kind: str) -> Message:
    request = PredictionRequest(2, len(IDS), LOGITS.shape[1], IDS, answers=kind)
    return Message(
        write_request(request), dst_node_id=node_id_of(0), message_type=TRAIN_PREDICTIONS.kind
    )


# --- there and back ---


@settings(max_examples=200, deadline=None)
@given(logits=tables)
def test_float32_is_exact_and_float16_rounds_and_clips(logits: np.ndarray) -> None:
    assert (back(logits, "float32") == logits).all()
    with np.errstate(over="ignore"):
        expected = np.clip(logits, -65504, 65504).astype(np.float16).astype(np.float32)
    assert (back(logits, "float16") == expected).all()
    assert np.isfinite(back(logits, "float16")).all()
    inside = np.abs(logits) <= 65504
    error = np.abs(back(logits, "float16") - logits)[inside]
    # Half a unit in the last of 11 bits, or of the subnormal numbers
    assert (error <= np.maximum(np.abs(logits[inside]) * 2.0**-11, 2.0**-25)).all()


@settings(max_examples=300, deadline=None)
@given(logits=tables)
def test_uint8_is_within_half_a_step_of_its_row(logits: np.ndarray) -> None:
    step = (logits.max(-1).astype(float) - logits.min(-1)) / 255
    error = np.abs(back(logits, "uint8").astype(float) - logits)
    # Beside the half step, float32 rounds offset + step * code, and step itself 255 times.
    rounding = 256 * 2.0**-24 * np.abs(logits).max(-1) + 2.0**-126
    assert (error <= (step / 2 + rounding)[:, None]).all()


def test_uint8_by_hand() -> None:
    # From -1 to 4.1 in steps of .02: 0 is step 50, 1.999 is nearest to step 150, 2.0.
    logits = np.array([[-1.0, 4.1, 0.0, 1.999], [3.0, 3.0, 3.0, 3.0]], np.float32)
    codec = Precision("uint8")
    sent = codec.parts(logits)
    assert sent["codes"].tolist() == [[0, 255, 50, 150], [0, 0, 0, 0]]
    np.testing.assert_allclose(sent["ranges"], [[-1, 0.02], [3, 0]], rtol=1e-6)
    expected = [[-1, 4.1, 0, 2], [3, 3, 3, 3]]
    np.testing.assert_allclose(codec.array(sent).numpy(), expected, atol=1e-6)


def test_a_row_too_wide_for_float32_is_rejected() -> None:
    logits = np.array([[-3e38, 3e38, 0, 0, 0]] * 7, np.float32)
    content = write_reply(reply("uint8", logits))
    fault = fault_of(ask("uint8"), Message(content, reply_to=ask("uint8")))
    assert fault is not None
    assert "not finite" in fault


@each_kind
@pytest.mark.parametrize("rows", [slice(2, 5), np.array([4, 0])], ids=["slice", "ids"])
def test_some_rows_are_read_like_all_of_them(kind: str, rows: object) -> None:
    codec = Precision(kind)
    sent = codec.parts(LOGITS)
    assert (codec.array(sent, rows).numpy() == codec.array(sent).numpy()[rows]).all()


@each_kind
def test_the_bound_on_logits_holds_and_is_reached(kind: str) -> None:
    codec, found = Precision(kind), np.abs(back(LOGITS, kind)).max()
    bound = codec.bound(codec.parts(LOGITS))
    assert found <= bound * (1 + 1e-6)
    assert kind == "uint8" or found == bound


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="codec 'int4': expected one of float32, float16, uint8"):
        Precision("int4")


# --- in messages ---


@each_kind
def test_a_message_carries_them(kind: str) -> None:
    read = read_reply(write_reply(reply(kind)))
    assert read.answers == kind
    assert read.logits.dtype == np.float32
    assert (read.logits == back(LOGITS, kind)).all()
    assert read_request(ask(kind).content).answers == kind


def test_bytes_are_those_of_the_numbers_and_a_header_per_array() -> None:
    # N = 300, C = 20: 24,000, 12,000 and 6,000 + 8 * 300 bytes of numbers, 128 of header per array
    logits = np.random.default_rng(0).standard_normal((300, 20)).astype(np.float32)
    sizes = {kind: size_bytes(write_reply(reply(kind, logits))) for kind in ANSWERS}
    others = sizes["float32"] - (24_000 + 128 + len("logits") + len("float32"))
    assert sizes["float16"] - others == 12_000 + 128 + len("logits") + len("float16")
    names = len("logits.codes") + len("logits.ranges") + len("uint8")
    assert sizes["uint8"] - others == 6_000 + 2_400 + 2 * 128 + names
    assert others < 200


@each_kind
def test_good_answers_pass_the_screen(kind: str) -> None:
    assert fault_of(ask(kind), Message(write_reply(reply(kind)), reply_to=ask(kind))) is None


@pytest.mark.parametrize("asked", ANSWERS)
@pytest.mark.parametrize("sent", ANSWERS)
def test_another_kind_than_asked_for_is_rejected(asked: str, sent: str) -> None:
    fault = fault_of(ask(asked), Message(write_reply(reply(sent)), reply_to=ask(asked)))
    assert (fault is None) == (asked == sent)
    honest = write_reply(reply(sent))
    honest["config"]["answers"] = asked  # what it says, against what it is
    assert (fault_of(ask(asked), Message(honest, reply_to=ask(asked))) is None) == (asked == sent)


@each_kind
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_rejected_whatever_their_kind(
    kind: str, value: float
) -> None:
    logits = LOGITS.copy()
    logits[3, 2] = value
    fault = fault_of(ask(kind), Message(write_reply(reply(kind, logits)), reply_to=ask(kind)))
    assert fault is not None
    assert "not finite" in fault


@each_kind
def test_logits_beyond_the_limit_are_rejected_or_clipped(kind: str) -> None:
    logits = LOGITS.copy()
    logits[3, 2] = 1e31
    fault = fault_of(ask(kind), Message(write_reply(reply(kind, logits)), reply_to=ask(kind)))
    assert (fault is None) == (kind == "float16")
    assert fault is None or "goes beyond 1e+30" in fault


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        (
            "logits.codes",
            np.zeros((7, 4), np.uint8),
            r"codes' is uint8 \(7, 4\), expected uint8 \(7, 5\)",
        ),
        ("logits.codes", np.zeros((7, 5), np.int16), r"codes' is int16"),
        ("logits.ranges", np.zeros((7,), np.float32), r"ranges' is float32 \(7,\)"),
        ("logits.ranges", np.zeros((7, 2), np.float64), r"ranges' is float64"),
        ("logits.ranges", None, "logits.ranges missing"),
        ("logits", LOGITS, "logits sent but not asked for"),
    ],
)
def test_bad_codes_are_rejected_with_their_reason(
    name: str, array: np.ndarray | None, reason: str
) -> None:
    content = write_reply(reply("uint8"))
    sent = read_arrays(content["predictions"])
    changed = {k: v for k, v in (sent | {name: array}).items() if v is not None}
    content["predictions"] = write_arrays(changed)
    fault = fault_of(ask("uint8"), Message(content, reply_to=ask("uint8")))
    assert fault is not None
    assert re.search(reason, fault)


def test_a_reply_in_another_clients_name_is_rejected() -> None:
    forged = write_reply(replace(reply("float32"), client_id=8))
    found = fault_of(ask("float32"), Message(forged, reply_to=ask("float32")))
    assert found == "'client-id' is 8, expected 0"


# --- records ---

SAMPLES = {
    "float": LOGITS,
    "half": LOGITS.astype(np.float16),
    "bool": LOGITS > 0,
    "scalar": np.array(3),
    "empty": np.zeros((4, 0, 2), np.float32),
    "transposed": LOGITS.T[1:],
    "strided": LOGITS[::2, ::3],
}


@pytest.mark.parametrize("name", SAMPLES)
def test_arrays_are_written_as_flower_writes_them(name: str) -> None:
    array = SAMPLES[name]
    ours, flowers = write_arrays({"a": array})["a"], Array(np.ascontiguousarray(array))
    if name == "scalar":  # which ascontiguousarray makes a row of one
        flowers = Array(array)
    assert (ours.dtype, ours.shape, ours.stype) == (flowers.dtype, flowers.shape, flowers.stype)
    assert ours.data == flowers.data


@pytest.mark.parametrize("name", SAMPLES)
def test_a_view_is_the_array_without_a_copy_or_write_access(name: str) -> None:
    for record in (write_arrays({"a": SAMPLES[name]}), ArrayRecord({"a": Array(SAMPLES[name])})):
        view = read_arrays(record)["a"]
        assert view.dtype == SAMPLES[name].dtype
        assert view.shape == SAMPLES[name].shape
        assert (view == SAMPLES[name]).all()
        assert not view.flags.writeable
        assert not view.flags.owndata


@each_kind
@pytest.mark.parametrize("name", ["w.ranges", "w.codes", "ranges", "codes", "w.ranges.codes"])
def test_arrays_that_are_called_like_parts_come_back(kind: str, name: str) -> None:
    """Integers pass as they are: those called `w.ranges` were dropped as if a part of `w`."""
    codec = Precision(kind)
    sent = {name: np.arange(6).reshape(3, 2), "other": np.ones((3, 2), np.float32)}
    back_again = codec.decode(codec.encode(sent))
    assert back_again.keys() == sent.keys()
    assert back_again[name].tolist() == sent[name].tolist()
    floats = {name: np.arange(6, dtype=np.float32).reshape(3, 2), "w": np.ones(4, np.float32)}
    found = codec.decode(codec.encode(floats))
    assert found.keys() == floats.keys()
    np.testing.assert_allclose(found[name], floats[name], atol=0.02)
