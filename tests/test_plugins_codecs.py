"""The contract of every codec found in conf/, and in your own folder; see test_plugins.

`STILLHOUSE_RULES=/path/to/your/conf pytest tests/test_plugins_codecs.py`, where that folder has
`clients/codec/*.yaml`.
"""

from functools import partial
from typing import Any

import joblib
import numpy as np
import pytest

from clients.execution.isolation import keeps_nothing
from clients.handlers.coded_parameters import rehearse_codec
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.codecs import OF_ANSWERS, RECEIVED, codec_of, told
from clients.messages.field import Field
from clients.messages.fields import rehearse_codec as rehearse_answers
from clients.signatures import needs
from clients.training.local_context import noted
from tests.federations import tiny_clients
from tests.places import CONF
from tests.plugins import found

CODECS = {name: codec for name, codec in found("codec", "clients").items() if name != "none"}
codecs = pytest.mark.parametrize("name", CODECS)
RNG = np.random.default_rng(0)
BEFORE = {"w": RNG.standard_normal((20, 30)).astype(np.float32), "b": np.zeros(9, np.float32)}
AFTER = {n: (a + 0.1 * RNG.standard_normal(a.shape)).astype(np.float32) for n, a in BEFORE.items()}


def offered(received: Any = BEFORE, seed: int = 0) -> Any:
    things = {"client_id": 3, "server_round": 1, "received": received, "state": {},
              "note": partial(noted, {}, "note"), "rng": np.random.default_rng(seed)}  # fmt: skip
    return {name: lambda thing=thing: thing for name, thing in things.items()}


def test_how_many_codecs_were_found() -> None:
    shipped = {path.stem for path in (CONF / "clients" / "codec").glob("*.yaml")} - {"none"}
    assert len(shipped) == 7
    assert shipped <= CODECS.keys()


@codecs
def test_it_is_one_for_parameters_of_any_network(name: str) -> None:
    rehearse_codec(tiny_clients(2, codec=CODECS[name]))


@codecs
def test_it_is_one_for_answers_unless_it_needs_what_was_received(name: str) -> None:
    codec = CODECS[name]
    if needs(codec.encode, RECEIVED) or needs(codec.decode, RECEIVED):
        with pytest.raises(ValueError, match="'received', which nobody gives it"):
            codec_of(codec, OF_ANSWERS)
    else:
        rehearse_answers("logits", Field(lambda asked: 0, ("R", "C"), codec=codec), 5, name)


@codecs
def test_the_same_bits_come_of_the_same_stream_and_nothing_else_is_changed(name: str) -> None:
    codec, before = CODECS[name], joblib.hash((BEFORE, AFTER))
    with keeps_nothing(codec=codec):
        one, other = (told(codec.encode, AFTER, offered()) for _ in range(2))
        assert joblib.hash(one) == joblib.hash(other)
        back = told(codec.decode, read_arrays(write_arrays(one)), offered())
    assert all(np.isfinite(array).all() for array in back.values())
    assert joblib.hash((BEFORE, AFTER)) == before


@codecs
def test_what_is_not_finite_arrives_as_that_or_not_at_all(name: str) -> None:
    """A receiver that finds no NaN would take a client that diverged for a good one."""
    codec, odd = CODECS[name], {n: a.copy() for n, a in AFTER.items()}
    odd["w"][3, 4] = np.nan
    try:
        with np.errstate(invalid="ignore"):
            parts = read_arrays(write_arrays(told(codec.encode, odd, offered())))
            arrays = told(codec.decode, parts, offered())
    except Exception:
        return
    assert not all(np.isfinite(array).all() for array in arrays.values())
