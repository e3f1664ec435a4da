"""Chains of codecs: known answers by hand, bytes, what each keeps and notes, what is refused."""

from typing import Any

import numpy as np
import pytest

from clients.execution.isolation import keeps_nothing
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.chain import Chain
from clients.messages.codecs import (
    OF_ANSWERS,
    OF_PARAMETERS,
    RECEIVED,
    Precision,
    codec_of,
    told,
)
from clients.messages.compression import QSGD, Deflate, GaussianMechanism, TopK
from clients.messages.field import Field
from clients.messages.shipped_fields import rehearse_codec as rehearse_answers
from clients.signatures import names, needs
from tests.coded import averaged, failures, trained

RNG = np.random.default_rng(0)
BEFORE = {"w": RNG.standard_normal((60, 50)).astype(np.float32), "b": np.zeros(9, np.float32)}
AFTER = {n: (a + RNG.standard_normal(a.shape)).astype(np.float32) for n, a in BEFORE.items()}


def offered(received: Any = BEFORE, seed: int = 0, **more: Any) -> Any:
    things = {"rng": np.random.default_rng(seed), "received": received, "state": {}, **more}
    return {name: lambda thing=thing: thing for name, thing in things.items()}


def sent(codec: Any, **more: Any) -> dict[str, Any]:
    return read_arrays(write_arrays(told(codec.encode, AFTER, offered(**more))))


def bytes_of(codec: Any) -> int:
    return sum(part.nbytes for part in sent(codec).values())


def test_each_encodes_what_the_one_before_it_made_and_decoding_goes_back() -> None:
    """Of changes 1, -5, 2 and 3 the largest two, -5 and 3, whose 8 bits are 0 and 255."""
    codec = Chain([TopK(0.5), "uint8"])
    received = {"a": np.array([10, 10, 10, 10], np.float32)}
    arrays = {"a": np.array([11, 5, 12, 13], np.float32)}
    state: dict[str, Any] = {}
    parts = told(codec.encode, arrays, offered(received, state=state))
    assert set(parts) == {"1.layout", "1.places", "1.values.codes", "1.values.ranges"}
    assert parts["1.places"].tolist() == [1, 3]
    assert parts["1.values.codes"].tolist() == [0, 255]
    assert {name: each.tolist() for name, each in state.items()} == {"0.left": [1, 0, 2, 0]}
    back = told(codec.decode, parts, offered(received))
    assert back["a"] == pytest.approx([10, 5, 10, 13])
    again = told(codec.encode, arrays, offered(received, state=state))  # of 2, -5, 4, 3
    assert again["1.places"].tolist() == [1, 2]
    assert state["0.left"].tolist() == [2, 0, 0, 3]


def test_a_chain_of_one_is_that_one() -> None:
    for codec in (TopK(0.3), QSGD(3), Precision("uint8"), Deflate()):
        alone, chained = sent(codec), sent(Chain([codec]))
        assert {n: a.tobytes() for n, a in alone.items()} == {
            n: a.tobytes() for n, a in chained.items()
        }


def test_it_takes_fewer_bytes_than_each_alone() -> None:
    """Of D numbers 8 D / 10 bytes, D and what zlib leaves of D / 2: 1 byte of a value, 4 of a place
    whose upper two are 0."""
    size = sum(array.size for array in AFTER.values())
    chain = Chain([TopK(0.1), Deflate(9)])
    assert bytes_of(TopK(0.1)) == pytest.approx(0.8 * size, rel=0.05)
    assert bytes_of(Deflate(9)) > 0.8 * size
    assert bytes_of(chain) < 0.4 * size
    assert bytes_of(Chain([TopK(0.1), QSGD(2), Deflate(9)])) < bytes_of(chain)
    back = told(chain.decode, sent(chain), offered())
    plain = told(TopK(0.1).decode, sent(TopK(0.1)), offered())
    step = 2 * max(np.abs(AFTER[name] - BEFORE[name]).max() for name in AFTER) / 255
    for name in AFTER:
        assert np.abs(back[name] - plain[name]).max() <= step / 2 + 1e-6
        assert (back[name] != plain[name]).any() or name == "b"


def test_parts_of_the_same_name_do_not_meet() -> None:
    """Both call what their vector is of "layout"; 8 bits of the larger half."""
    codec = Chain([TopK(0.5, False), QSGD(8, 64)])
    back = told(codec.decode, sent(codec), offered())
    plain = told(TopK(0.5, False).decode, sent(TopK(0.5, False)), offered())
    for name in AFTER:
        assert np.abs(back[name] - plain[name]).max() < 0.1
        assert back[name].shape == AFTER[name].shape


class Counting:
    """Counts its messages, and notes how many there have been."""

    def encode(self, arrays: Any, *, state: Any, note: Any) -> Any:
        state["count"] = np.array(int(state.get("count", 0)) + 1)
        note(count=int(state["count"]))
        return arrays

    def decode(self, arrays: Any) -> Any:
        return arrays


def test_what_each_keeps_and_notes_is_apart() -> None:
    codec, state, notes = Chain([Counting(), TopK(0.5), Counting()]), dict[str, Any](), {}

    def note(**numbers: float) -> None:
        notes.update(numbers)

    state["2.count"] = np.array(4)
    for _ in range(2):
        told(codec.encode, AFTER, offered(state=state, note=note))
    assert notes == {"count_0": 2, "count_2": 6}
    assert set(state) == {"0.count", "1.left", "2.count"}


class Forgetful(Counting):
    """Notes how many names its state has, and leaves one that is of this message alone."""

    def encode(self, arrays: Any, *, state: Any, note: Any) -> Any:
        note(known=len(state))
        state.clear()
        state[f"after {len(arrays)}"] = np.array(1)
        return arrays


def test_what_a_codec_takes_out_of_its_state_stays_out() -> None:
    codec, notes = Chain([Forgetful(), Forgetful()]), dict[str, float]()
    state: dict[str, Any] = {"0.old": np.array(0), "0.older": np.array(0), "1.old": np.array(0)}
    told(codec.encode, AFTER, offered(state=state, note=lambda **n: notes.update(n)))
    assert notes == {"known_0": 2, "known_1": 1}
    assert set(state) == {"0.after 2", "1.after 2"}


def test_it_names_what_one_of_them_names_and_needs_what_one_needs() -> None:
    few = Chain(["uint8", "float16"])
    assert not any(names(few.encode, name) for name in OF_PARAMETERS)
    assert not names(few.decode, RECEIVED)
    some = Chain([QSGD(), TopK()])
    assert [name for name in OF_PARAMETERS if names(some.encode, name)] == [
        "rng", "received", "state"
    ]  # fmt: skip
    assert [name for name in OF_PARAMETERS if needs(some.encode, name)] == ["rng"]
    assert names(some.decode, RECEIVED)
    assert codec_of(some, OF_ANSWERS) is some
    rehearse_answers("logits", Field(lambda asked: 0, ("R", "C"), codec=some), 5, "own")
    with keeps_nothing(codec=some):
        told(some.encode, AFTER, offered())


class Needy:
    def encode(self, arrays: Any, *, epsilon: float) -> Any:
        return arrays

    def decode(self, arrays: Any) -> Any:
        return arrays


class Differing(Needy):
    def encode(self, arrays: Any, *, received: Any) -> Any:  # type: ignore[override]
        return arrays


@pytest.mark.parametrize(
    ("codecs", "message"),
    [
        ([], r"codec Chain: codecs=\[\], expected a list of codecs"),
        ("uint8", "codec Chain: codecs='uint8', expected a list"),
        (["uint8", "uint7"], r"codec Chain: codecs\[1\]: codec 'uint7': expected one of float32"),
        (["uint8", Needy()], r"codecs\[1\]: codec Needy: encode needs 'epsilon', which nobody"),
        (["uint8", Differing()], r"codecs\[1\]: codec Differing: encode needs 'received', which"),
    ],
)
def test_what_is_no_chain_is_refused_by_place(codecs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Chain(codecs)
    assert Chain([Differing(), "uint8"]).codecs[1] == Precision("uint8")


@pytest.mark.parametrize("name", ["1.layout", "1.places", "1.values.codes"])
def test_what_anybody_may_send_raises(name: str) -> None:
    codec = Chain([TopK(0.2), "uint8"])
    parts = sent(codec)
    for odd in (
        parts | {name: np.zeros(3, np.uint8)},
        {n: p for n, p in parts.items() if n != name},
    ):
        with pytest.raises((ValueError, KeyError)):
            told(codec.decode, odd, offered())


def test_a_run_is_the_same_on_both_pools_and_sends_less_than_either_alone() -> None:
    codec = Chain([GaussianMechanism(1e6, 1e-4), TopK(0.2), Deflate()])
    inline, ray = (averaged(codec, pool) for pool in ("inline", "ray"))
    assert not failures(inline)
    assert inline.sha256 == ray.sha256 != averaged(TopK(0.2)).sha256
    assert [inline.grid.states.of(k) for k in range(4)] == [ray.grid.states.of(k) for k in range(4)]
    assert trained(inline)[0].metrics["note.noise_multiplier_0"] == pytest.approx(1e-10)


@pytest.mark.parametrize("before", ["float16", QSGD(8), TopK(0.2), Chain([Deflate()])])
def test_nothing_goes_past_a_private_codec(before: Any) -> None:
    """float16 hands on arrays of another dtype, top-k its places: they were sent in clear."""
    with pytest.raises(ValueError, match=r"codecs\[1\]: GaussianMechanism is private, .*the first"):
        Chain([before, GaussianMechanism(sigma=1000)])
    with pytest.raises(ValueError, match=r"codecs\[1\]: Chain is private"):
        Chain([before, Chain([GaussianMechanism(sigma=1000), "float16"])])
    assert Chain([GaussianMechanism(), before]).private
    assert not Chain([before]).private
