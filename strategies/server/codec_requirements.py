"""Which strategies codecs of parameters and of targets are for; others are refused by name."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from flwr.app import MetricRecord

from clients.duck_typing import told
from clients.handlers.base import Handler
from clients.handlers.coded_parameters import rehearse_codec
from clients.handlers.coded_requests import SENT, rehearse_codec_down
from clients.messages.codecs import RECEIVED, Codec, is_private
from clients.messages.requests import ARRAYS
from clients.population.clients import SimulatedClients
from clients.signatures import names
from strategies.argument_injection import wants
from strategies.server.configured_strategies import kinds, partials
from strategies.server.distillation import DIGESTED
from strategies.server.federated_distillation import FederatedDistillation
from strategies.server.mutual import MutualStrategy


def require_codec(strategy: Any, clients: SimulatedClients) -> None:
    """Refuse a codec of parameters that no reply has, or that knows no parameters to go by.

    Args:
        strategy: Complete, or with some of its arguments bound.
        clients: All of the federation's; they have a codec.

    Raises:
        ValueError: Says what the strategy's clients send, or are sent; or the codec is none.
    """
    assert clients.codec is not None, "it is what is looked at"
    rehearse_codec(clients)
    if FederatedDistillation in kinds(strategy):
        raise ValueError("clients.codec: clients send no parameters in this strategy: leave it out")
    answers = isinstance(strategy, partial) and "distil" in strategy.keywords
    if answers or _sends_targets(strategy):
        raise ValueError(
            "clients.codec: clients of this strategy send answers and no parameters: expected "
            "strategy.ensemble.answers, or one whose clients do, such as strategy=averaging"
        )
    sends_none = any(issubclass(kind, MutualStrategy) for kind in kinds(strategy))
    if names(clients.codec.encode, RECEIVED) and (sends_none or wants(strategy, "mixing")):
        raise ValueError(
            "clients.codec: it codes the difference to the parameters that a client received, and "
            "this strategy sends none: expected one that does not name 'received', such as "
            "clients/codec=uint8"
        )


def require_codec_down(strategy: Any, clients: SimulatedClients) -> None:
    """Refuse a codec of what the server sends where it sends neither parameters nor targets.

    Args:
        strategy: Complete, or with some of its arguments bound.
        clients: All of the federation's; they have a codec down.

    Raises:
        ValueError: Says what the server sends; or the codec is none.
    """
    told = [each.keywords.get("feed_back") for each in partials(strategy)]
    targets = any(each in DIGESTED for each in told) or _sends_targets(strategy)
    rehearse_codec_down(clients, targets=targets)
    parts = [*partials(strategy)]  # a sequence, and its stages
    if parts and not any(map(_sends_parameters, parts[1:] or parts)):
        raise ValueError(
            "clients.codec_down: the server of this strategy, if it has one, sends no parameters: "
            "expected one that does, such as strategy=averaging, or strategy.feed_back=student or "
            "targets"
        )


def _sends_targets(strategy: Any) -> bool:
    return any(getattr(kind, "sends_targets", False) for kind in kinds(strategy))


def _sends_parameters(strategy: partial[Any]) -> bool:
    if _sends_targets(strategy):
        return True
    if strategy.func is FederatedDistillation:
        return False
    if "distil" in strategy.keywords:
        return bool(strategy.keywords.get("feed_back", False))
    return not (strategy.func is MutualStrategy or wants(strategy, "mixing"))


def require_coded(strategy: Any, clients: SimulatedClients) -> None:
    """Refuse a codec of which no message of a method with handlers of its own has anything.

    Args:
        strategy: Complete.
        clients: All of the federation's.

    Raises:
        ValueError: Says which records are coded, and which there are.
    """
    handlers = [each for each in told(strategy, "handlers") or () if not each.measurement]
    any_reply = any(each.replies is None for each in handlers)
    if clients.codec is not None and not any_reply:
        replies = {name for each in handlers for name in each.replies or ()}
        _require_one("clients.codec", (ARRAYS,), replies, handlers, "clients reply")
    if clients.codec is not None and is_private(clients.codec):
        _require_nothing_beside(clients.codec, handlers, any_reply)
    if clients.codec_down is not None:
        requests = {name for each in handlers for name in each.records}
        _require_one("clients.codec_down", SENT, requests, handlers, "the server sends")


def _require_nothing_beside(codec: Codec, handlers: Sequence[Handler], any_reply: bool) -> None:
    replies = [item for each in handlers for item in (each.replies or {}).items()]
    beside = {name for name, kind in replies if name != ARRAYS and kind is not MetricRecord}
    if beside or any_reply:
        there = f"{', '.join(sorted(beside))} beside it" if beside else "any records"
        raise ValueError(
            f"clients.codec: {type(codec).__name__} is private and codes '{ARRAYS}' alone, and "
            f"in this strategy clients reply {there}, which would go as they are: leave it out"
        )


def _require_one(
    key: str, coded: Sequence[str], there: set[str], handlers: Sequence[Handler], who: str
) -> None:
    if handlers and not there & {*coded}:
        raise ValueError(
            f"{key}: codes {' or '.join(map(repr, coded))}, and in this strategy {who} "
            f"{', '.join(sorted(there)) or 'no records'}: leave it out"
        )
