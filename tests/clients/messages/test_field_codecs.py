"""A codec of anyone's on a field of answers: there and back, tried before, and refused."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from clients.messages.field import Field
from clients.messages.replies import no_stream
from clients.messages.shipped_fields import rehearse_codec

RNG = np.random.default_rng(0)


def energy(about: Any) -> Any:
    return -about.logits.logsumexp(-1)


def stream(seed: int, name: str) -> np.random.Generator:
    assert name == "x.codec"
    return np.random.default_rng(seed)


class Noisy:
    """A codec of a user's own: clipped, noised, and one byte a number."""

    def encode(self, arrays: Any, *, rng: np.random.Generator) -> Any:
        ((_, array),) = arrays.items()
        noised = np.clip(array, -1, 1) + rng.normal(scale=0.5, size=array.shape)
        return {"steps": np.clip(noised * 32, -127, 127).astype(np.int8)}

    def decode(self, arrays: Any) -> Any:
        return {"x": arrays["steps"].astype(np.float32) / 32}


def test_a_codec_of_ones_own_sits_on_a_field() -> None:
    field = Field(energy, ("N", 5), codec=Noisy())
    array = RNG.standard_normal((3, 5)).astype(np.float32)
    one, other = (field.encode("x", array, partial(stream, seed)) for seed in (0, 1))
    assert list(one) == ["x.steps"]
    assert one["x.steps"].nbytes == 15
    assert (one["x.steps"] != other["x.steps"]).any()
    assert field.fault_in("x", one, 3, 4) is None
    assert field.fault_in("x", {"x.steps": one["x.steps"][:2]}, 3, 4) == (
        "array 'predictions/x' is float32 (2, 5), expected float32 (3, 5)"
    )
    assert "cannot be decoded: 'steps'" in str(field.fault_in("x", {"x.other": array}, 3, 4))
    assert "cannot be decoded: x missing" in str(field.fault_in("x", {}, 3, 4))
    assert (field.decode("x", one, slice(1, 3)) == field.decode("x", one)[1:3]).all()
    with pytest.raises(ValueError, match="field 'x.codec': its codec may draw"):
        field.encode("x", array, no_stream)


class Named(Noisy):
    def decode(self, arrays: Any) -> Any:
        return {"y": super().decode(arrays)["x"]}


class Short(Noisy):
    def decode(self, arrays: Any) -> Any:
        return {"x": super().decode(arrays)["x"][1:]}


class Wide(Noisy):
    def decode(self, arrays: Any) -> Any:
        return {"x": super().decode(arrays)["x"].astype(float)}


class Lone(Noisy):
    def encode(self, arrays: Any, *, rng: np.random.Generator) -> Any:
        return arrays["x"]


class Changing(Noisy):
    def encode(self, arrays: Any, *, rng: np.random.Generator) -> Any:
        arrays["x"][:] = 0
        return arrays


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (Noisy(), None),
        (Named(), "ValueError: decode gave y, expected 'x'"),
        (Short(), r"decode gave float32 \(3, 5\), expected float32 \(4, 5\)"),
        (Wide(), r"decode gave float64 \(4, 5\), expected float32 \(4, 5\)"),
        (Lone(), "ValueError: gave ndarray, expected arrays by name"),
        (Changing(), "ValueError: assignment destination is read-only"),
    ],
)
def test_a_codec_is_tried_before_anybody_trains(codec: Any, message: str | None) -> None:
    field = Field(energy, ("N", 5), codec=codec)
    if message is None:
        rehearse_codec("x", field, 4, "my.key")
    else:
        with pytest.raises(ValueError, match=rf"my\.key: {message}"):
            rehearse_codec("x", field, 4, "my.key")


class Needy(Noisy):
    def encode(self, arrays: Any, *, rng: np.random.Generator, received: Any) -> Any:
        return arrays


def test_a_codec_that_needs_what_nobody_gives_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="codec Needy: encode needs 'received', which nobody giv"):
        Field(energy, ("N", 5), codec=Needy())
