"""Codecs that are shipped: known answers by hand, bounds, bytes, and what anybody may send them."""

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.codecs import OF_PARAMETERS, Codec, Precision, codec_of, told
from clients.messages.compression import QSGD, Deflate, GaussianMechanism, TopK
from clients.messages.layout import layout_of, size_of
from clients.training.local_context import noted

RNG = np.random.default_rng(0)
ARRAYS = {
    "layer.weight": RNG.standard_normal((40, 30)).astype(np.float32),
    "layer.bias": RNG.standard_normal(40).astype(np.float32),
    "kernel": RNG.standard_normal((4, 3, 3, 3)).astype(np.float32),
    "scale": np.array(2, np.float32),
    "steps": np.array(7),
    "none": np.zeros((0, 3), np.float32),
}
RECEIVED = {name: (array * 0.5).astype(array.dtype) for name, array in ARRAYS.items()}
ALL: dict[str, Any] = {
    "float32": Precision("float32"),
    "float16": Precision("float16"),
    "uint8": Precision("uint8"),
    "top_k": TopK(0.1),
    "one bit": QSGD(1),
    "four bits": QSGD(4),
    "eight bits": QSGD(8, 64),
    "deflate": Deflate(),
    "gaussian": GaussianMechanism(1e9, 0.0),
}
each_codec = pytest.mark.parametrize("codec", ALL.values(), ids=ALL)
vector = partial(np.array, dtype=np.float32)


def offered(
    received: Any = None, seed: int = 1, state: Any = None, notes: Any = None
) -> dict[str, Callable[[], Any]]:
    return {
        "rng": lambda: np.random.default_rng(seed),
        "received": lambda: received or {},
        "state": lambda: {} if state is None else state,
        "note": lambda: partial(noted, {} if notes is None else notes, "note"),
    }


def sent(codec: Codec, arrays: Any, *what: Any, **more: Any) -> dict[str, Any]:
    """Encode, and read what then is in a message."""
    return read_arrays(write_arrays(told(codec.encode, arrays, offered(*what, **more))))


def back(codec: Codec, arrays: Any, received: Any = None, **more: Any) -> dict[str, Any]:
    parts = sent(codec, arrays, received, **more)
    return told(codec.decode, parts, offered(received))


def bytes_of(parts: Any) -> int:
    return sum(part.nbytes for part in parts.values())


# --- there and back ---


@each_codec
@pytest.mark.parametrize("received", [None, RECEIVED], ids=["whole", "difference"])
def test_names_shapes_and_dtypes_come_back_and_whole_numbers_as_they_were(
    codec: Codec, received: Any
) -> None:
    found = back(codec_of(codec, OF_PARAMETERS), ARRAYS, received)
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
    assert found["steps"] == 7


@each_codec
def test_nothing_to_encode_is_nothing(codec: Codec) -> None:
    assert back(codec, {}) == {}


@pytest.mark.parametrize(
    ("name", "share"),
    [("float32", 1), ("float16", 1 / 2), ("uint8", 1 / 4 + 2 / 100), ("top_k", 2 * 0.1),
     ("one bit", 1 / 32 + 1 / 512), ("four bits", 4 / 32 + 1 / 512), ("eight bits", 1 / 4 + 1 / 64),
     ("gaussian", 1)],
)  # fmt: skip
def test_bytes_shrink_by_the_stated_factor(name: str, share: float) -> None:
    arrays = {"a": RNG.standard_normal((512, 100)).astype(np.float32)}
    parts = {k: v for k, v in sent(ALL[name], arrays, {"a": np.zeros_like(arrays["a"])}).items()
             if k != "layout"}  # fmt: skip
    assert bytes_of(parts) == pytest.approx(share * 4 * 51200, rel=1e-6)


def test_zlib_takes_less_where_levels_repeat() -> None:
    few = {"a": RNG.integers(0, 4, (100, 100)).astype(np.float32)}  # two bits each
    noise = {"a": RNG.random((100, 100)).astype(np.float32)}
    assert len(sent(Deflate(), few)["deflated"]) < 0.4 * 10_000
    assert 10_000 < len(sent(Deflate(), noise)["deflated"]) < 11_500
    same = {"a": noise["a"] + 1}
    assert len(sent(Deflate(), same, same)["deflated"]) < 200  # nothing has changed
    assert bytes_of(sent(Deflate(0), few)) > bytes_of(sent(Deflate(9), few))


# --- by hand ---


def test_top_k_by_hand_and_what_is_left_out_comes_later() -> None:
    codec, state = TopK(0.5), dict[str, Any]()
    arrays = {"a": vector([1, -5, 2]), "b": vector([[3]])}
    parts = sent(codec, arrays, state=state)
    assert parts["places"].tolist() == [1, 3]
    assert parts["places"].dtype == np.int32
    assert parts["values"].tolist() == [-5, 3]
    assert state["left"].tolist() == [1, 0, 2, 0]
    found = told(codec.decode, parts, offered())
    assert (found["a"].tolist(), found["b"].tolist()) == ([0, -5, 0], [[3]])
    again = sent(codec, arrays, state=state)  # of 2, -5, 4, 3
    assert (again["places"].tolist(), again["values"].tolist()) == ([1, 2], [-5, 4])
    assert state["left"].tolist() == [2, 0, 0, 3]
    forgets = sent(TopK(0.5, memory=False), arrays, state=state)
    assert forgets["places"].tolist() == [1, 3]
    assert state["left"].tolist() == [2, 0, 0, 3]


def test_top_k_takes_the_first_of_equals_and_codes_the_difference() -> None:
    parts = sent(TopK(0.5, False), {"a": vector([2, 2, -2, 2])})
    assert parts["places"].tolist() == [0, 1]
    assert sent(TopK(0.01, False), {"a": vector([2, 3])})["places"].tolist() == [1]  # one at least
    received = {"a": vector([10, 10, 10, 10])}
    arrays = {"a": vector([11, 10, 14, 7])}
    assert back(TopK(0.5), arrays, received)["a"].tolist() == [10, 10, 14, 7]


def test_a_number_that_is_not_finite_is_sent_for_the_receiver_to_reject() -> None:
    array = np.zeros(100, np.float32)
    array[50] = np.nan
    with np.errstate(invalid="ignore"):
        for name, codec in ALL.items():
            assert not np.isfinite(back(codec, {"a": array})["a"]).all(), name


def test_levels_by_hand() -> None:
    """Two bits: -m, 0, m of m = 2; 1 is halfway, whatever is drawn -2, 0 and 2 are themselves."""
    codec = QSGD(2, bucket=4)
    ups = 0
    for seed in range(50):
        parts = sent(codec, {"a": vector([-2, 0, 1, 2])}, seed=seed)
        assert parts["scales"].tolist() == [2]
        up = int(parts["levels"][0]) >> 4 & 3  # of the third number, from the lowest bits
        assert up in (1, 2)
        assert parts["levels"].tolist() == [0 | 1 << 2 | up << 4 | 2 << 6]
        found = told(codec.decode, parts, offered())["a"]
        assert found.tolist() == [-2, 0, 2 * (up - 1), 2]
        ups += up - 1
    assert 10 < ups < 40


def test_one_bit_is_the_sign_and_each_bucket_has_its_scale() -> None:
    parts = sent(QSGD(1, bucket=2), {"a": vector([-2, 2, 0.5, -0.5, 0, 0])})
    assert parts["scales"].tolist() == [2, 0.5, 0]
    assert int(parts["levels"][0]) & 15 == 0b0110
    assert back(QSGD(1, bucket=2), {"a": vector([0, 0])})["a"].tolist() == [0, 0]


@pytest.mark.parametrize("bits", range(1, 9))
def test_stochastic_rounding_is_unbiased_and_within_a_step(bits: int) -> None:
    array, steps = RNG.standard_normal(30).astype(np.float32), max(1, 2**bits - 2)
    many = {"a": np.tile(array, (4000, 1))}
    found = back(QSGD(bits, bucket=30), many)["a"]
    step = 2 * np.abs(array).max() / steps
    assert np.abs(found - array).max() <= step * (1 + 1e-5)
    off = np.abs(found.mean(0) - array)
    assert off.max() < 5 * step / 2 / np.sqrt(4000)  # a coin's deviation is half a step at most
    assert len(np.unique(found.round(4))) <= steps + 1


def test_a_clipped_update_has_its_norm_and_noise_its_deviation() -> None:
    notes: dict[str, float] = {}
    received = {"a": vector([1, 1]), "b": vector([0])}
    arrays = {"a": vector([4, 5]), "b": vector([0])}  # 3, 4, 0: of norm 5
    parts = sent(GaussianMechanism(2.5, 0.0), arrays, received, notes=notes)
    assert parts["a"].tolist() == [2.5, 3]
    assert notes == {"noise_multiplier": 0}
    short = sent(GaussianMechanism(10, 0.0), arrays, received)
    assert short["a"].tolist() == [4, 5]
    codec = GaussianMechanism(2.0, 0.5)
    noised = sent(codec, {"a": np.zeros(100_000, np.float32)}, notes=notes)["a"]
    assert noised.std() == pytest.approx(0.5, rel=0.02)
    assert abs(noised.mean()) < 0.01
    assert notes == {"noise_multiplier": 0.25}


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_a_private_codec_refuses_what_it_would_not_reach(dtype: str) -> None:
    """It goes by float32: a network of float64 was sent as it is, beside a note of its noise."""
    with pytest.raises(ValueError, match=f"array 'w' is {dtype}, .*expected float32"):
        sent(GaussianMechanism(sigma=1000.0), {"w": np.ones(3, dtype)})
    steps = {"w": vector([1]), "steps": np.array(3)}  # batch norm's count of batches
    assert sent(GaussianMechanism(), steps)["steps"] == 3


def test_8_bits_of_parameters_have_a_range_for_each_row() -> None:
    parts = sent(Precision("uint8"), ARRAYS)
    assert parts["kernel.codes"].shape == (4, 3, 3, 3)
    assert parts["kernel.ranges"].shape == (4, 2)
    assert parts["layer.bias.ranges"].shape == parts["scale.ranges"].shape == (1, 2)
    found = back(Precision("uint8"), ARRAYS)
    for name in ("layer.weight", "layer.bias", "kernel"):
        step = np.ptp(ARRAYS[name]) / 255
        assert np.abs(found[name] - ARRAYS[name]).max() <= step / 2 + 1e-6
    deflated = back(Deflate(), ARRAYS)
    assert all((deflated[name] == found[name]).all() for name in ARRAYS)


# --- what is refused ---


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(TopK, share=0), r"share=0, expected in \(0, 1\]"),
        (partial(TopK, share=1.5), "share=1.5"),
        (partial(QSGD, bits=9), "bits=9, bucket=512: expected 1 to 8"),
        (partial(QSGD, bits=2.5), "bits=2.5"),
        (partial(QSGD, bucket=0), "bucket=0"),
        (partial(GaussianMechanism, clip=0), "clip=0"),
        (partial(GaussianMechanism, sigma=-1), "sigma=-1"),
        (partial(Deflate, level=10), "level=10, expected 0 to 9"),
    ],
)
def test_numbers_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_more_was_received_than_there_is_or_less() -> None:
    for codec in (TopK(), QSGD(), Deflate(), GaussianMechanism()):
        with pytest.raises(KeyError, match="b"):
            sent(codec, {"b": vector([1])}, {"a": vector([1])})
        assert set(back(codec, {"a": vector([1])}, {"a": vector([1]), "b": vector([1])})) == {"a"}


HUGE = layout_of([["a", [10**12, 10**12]]])
TEN = {"a": np.arange(10, dtype=np.float32)}


@pytest.mark.parametrize(
    ("codec", "changes"),
    [
        (TopK(0.2), {"layout": HUGE}),
        (TopK(0.2), {"layout": np.zeros(3, np.uint8)}),
        (TopK(0.2), {"layout": layout_of([["a", [-10]]])}),
        (TopK(0.2), {"layout": layout_of([["a", [True] * 10]])}),
        (TopK(0.2), {"layout": layout_of([3])}),
        (TopK(0.2), {"layout": np.frombuffer(b"[" * 100_000, np.uint8)}),
        (TopK(0.2), {"places": np.array([0, 10], np.int32)}),
        (TopK(0.2), {"places": np.array([-1, 2], np.int32)}),
        (TopK(0.2), {"places": np.array([0.5, 2])}),
        (TopK(0.2), {"values": vector([1, 2, 3])}),
        (QSGD(4), {"layout": HUGE}),
        (QSGD(4), {"levels": np.full(5, 255, np.uint8)}),
        (QSGD(4), {"levels": np.zeros(6, np.uint8)}),
        (QSGD(4), {"levels": np.zeros(5)}),
        (QSGD(4), {"scales": vector([1, 2])}),
        (Deflate(), {"layout": layout_of([["a", "float32", [10**12]]])}),
        (Deflate(), {"layout": layout_of([["a", "object", [1]]])}),
        (Deflate(), {"layout": layout_of([["a.codes", "uint8", [5]]])}),
        (Deflate(), {"deflated": np.zeros(9, np.uint8)}),
        (Deflate(), {"deflated": np.frombuffer(zlib.compress(bytes(10**7)), np.uint8)}),
    ],
)
def test_what_anybody_may_send_raises_and_takes_no_room(codec: Codec, changes: Any) -> None:
    parts = sent(codec, TEN)
    for odd in (parts | changes, {n: p for n, p in parts.items() if n not in changes}):
        with pytest.raises((ValueError, KeyError, TypeError, RecursionError, zlib.error)):
            told(codec.decode, odd, offered())


def test_a_layout_is_of_as_many_numbers_as_it_says() -> None:
    assert size_of({"layout": layout_of([["a", [2, 3]], ["b", []]])}) == 7
