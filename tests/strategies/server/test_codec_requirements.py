"""Codecs of which no message of a method of one's own has anything."""

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import ArrayRecord, MetricRecord

from clients.handlers.base import Handler
from clients.handlers.peer_parameters import EVALUATE_OWN
from clients.messages.chain import Chain
from clients.messages.codecs import Precision
from clients.messages.compression import GaussianMechanism
from strategies.server.averaging import Averaging
from strategies.server.codec_requirements import require_coded
from tests.federations import tiny_clients


def answer(*args: Any) -> Any:
    raise NotImplementedError


HANDLER = Handler(
    "train.mine",
    answer,
    records=("prototypes",),
    replies={"prototypes": ArrayRecord, "metrics": MetricRecord},
)
UINT8 = Precision("uint8")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("codec", "codes 'arrays', and in this strategy clients reply metrics, prototypes"),
        ("codec_down", "codes 'arrays' or 'student' or 'targets', and in this strategy the server "
                       "sends prototypes"),
    ],
)  # fmt: skip
def test_a_codec_of_what_is_not_sent_is_refused(key: str, message: str) -> None:
    """FedProto ran with clients/codec=uint8, and sent 48,040 bytes all the same."""
    clients = tiny_clients(2, **{key: UINT8})
    mine: Any = SimpleNamespace(handlers=(HANDLER, EVALUATE_OWN))
    with pytest.raises(ValueError, match=re.escape(f"clients.{key}: {message}")):
        require_coded(mine, clients)
    require_coded(mine, tiny_clients(2))


@pytest.mark.parametrize(
    "handler",
    [
        replace(HANDLER, records=("arrays",), replies={"arrays": ArrayRecord}),
        replace(HANDLER, records=("arrays",), replies=None),
    ],
    ids=["named", "any"],
)
def test_one_of_what_is_sent_is_not(handler: Handler) -> None:
    both = tiny_clients(2, codec=UINT8, codec_down=UINT8)
    require_coded(SimpleNamespace(handlers=(handler,)), both)  # type: ignore[arg-type]
    require_coded(Averaging(seed=0), both)  # Flower's own messages


@pytest.mark.parametrize(
    ("replies", "message"),
    [
        ({"arrays": ArrayRecord, "control": ArrayRecord}, "clients reply control beside it"),
        (None, "clients reply any records"),
    ],
)
def test_nothing_goes_past_a_codec_that_is_private(replies: Any, message: str) -> None:
    """SCAFFOLD's control is the exact update: it went in clear beside noise of sigma 1000."""
    handler = replace(HANDLER, records=("arrays",), replies=replies)
    mine: Any = SimpleNamespace(handlers=(handler,))
    private = GaussianMechanism(sigma=1000.0)
    for codec in (private, Chain([private, "float16"])):
        with pytest.raises(ValueError, match=f"is private and codes 'arrays' alone, .*{message}"):
            require_coded(mine, tiny_clients(2, codec=codec))
    require_coded(mine, tiny_clients(2, codec=UINT8))
    alone = replace(handler, replies={"arrays": ArrayRecord, "metrics": MetricRecord})
    hidden: Any = SimpleNamespace(handlers=(alone,))
    require_coded(hidden, tiny_clients(2, codec=private))
