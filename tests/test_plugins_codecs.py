"""The contract of every codec found in conf/, and in your own folder; see test_plugins.

`STILLHOUSE_RULES=/path/to/your/conf pytest tests/test_plugins_codecs.py`, where that folder has
`clients/codec/*.yaml`. `python run.py conformance codec MODULE.NAME` holds one to the same.
"""

import pytest

from clients.messages.codecs import OF_ANSWERS, RECEIVED, codec_of
from clients.signatures import needs
from strategies.conformance.checks import verdicts
from strategies.conformance.of_messages import CODEC
from tests.places import CONF
from tests.plugins import found

CODECS = {name: codec for name, codec in found("codec", "clients").items() if name != "none"}
codecs = pytest.mark.parametrize("name", CODECS)


def test_how_many_codecs_were_found() -> None:
    shipped = {path.stem for path in (CONF / "clients" / "codec").glob("*.yaml")} - {"none"}
    assert len(shipped) == 7
    assert shipped <= CODECS.keys()


@codecs
def test_a_codec_keeps_the_contract(name: str) -> None:
    assert [str(verdict) for verdict in verdicts(CODECS[name], CODEC) if verdict.fault] == []


@codecs
def test_one_that_needs_what_was_received_is_none_of_answers(name: str) -> None:
    codec = CODECS[name]
    if needs(codec.encode, RECEIVED) or needs(codec.decode, RECEIVED):
        with pytest.raises(ValueError, match="'received', which nobody gives it"):
            codec_of(codec, OF_ANSWERS)
