"""Codecs of parameters that are none, and replies that cannot be decoded: each names itself."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp.strategy import FedAvg

from clients.app import SimulatedApp
from clients.handlers.coded_parameters import rehearse_codec
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.codecs import Precision
from clients.messages.compression import TopK
from clients.models import mlp
from sim.topology import graphs
from strategies.server.averaging import Averaging
from strategies.server.codec_requirements import require_codec
from tests.coded import SAME, averaged, failures, trained
from tests.federations import (
    SEED,
    distillation,
    inline,
    run_ours,
    simulated,
    tiny_clients,
)
from tests.mutual_learning import mutual
from tests.peers import alike as peers_of
from tests.peers import averaging as gossip_of
from tests.peers import topology


class AsItIs:
    def encode(self, arrays: Any) -> Any:
        return arrays

    def decode(self, arrays: Any) -> Any:
        return arrays


class Hoarding(AsItIs):
    def __init__(self) -> None:
        self.seen = 0

    def encode(self, arrays: Any) -> Any:
        self.seen += 1
        return arrays


class Odd:
    """Cannot encode what client 2 has; client 1's cannot be decoded."""

    def encode(self, arrays: Any, *, client_id: int) -> Any:
        if client_id == 2:
            raise RuntimeError("too sparse")
        return {**arrays, "more": np.array([client_id])}

    def decode(self, arrays: Any) -> Any:
        if arrays["more"][0] == 1:
            raise MemoryError("a bomb")
        return {name: array for name, array in arrays.items() if name != "more"}


@pytest.mark.parametrize("pool", ["inline", "ray"])
def test_who_cannot_be_encoded_or_decoded_fails_by_name_and_the_others_go_on(pool: str) -> None:
    run = averaged(Odd(), pool, rounds=1)
    failed = {e.client_id: e for e in trained(run) if e.failure}
    assert {k: e.failure for k, e in failed.items()} == {
        1: "record 'arrays' cannot be decoded: MemoryError: a bomb",
        2: "ValueError: clients.codec: RuntimeError: too sparse",
    }
    assert "in encode" in failed[2].traceback
    assert failed[1].reply_bytes > 0
    assert failed[2].reply_bytes == 0
    assert len(trained(run)) - len(failed) == 2
    assert run.sha256 != averaged(rounds=1).sha256


def test_a_codec_that_keeps_something_elsewhere_fails() -> None:
    with pytest.raises(Exception, match=r"clients\.codec: Hoarding changed its 'seen'"):
        averaged(Hoarding(), rounds=1)


def spoilt(how: Any) -> list[tuple[int, str]]:
    """Let client 1's reply be spoilt on its way; return who failed."""

    class Spoiling(SimulatedApp):
        def serve(self, requests: Any, contexts: Any, device: str = "cpu") -> Any:
            for context, item in zip(contexts, super().serve(requests, contexts, device),
                                     strict=False):  # fmt: skip
                if isinstance(item, Message) and context.node_config["partition-id"] == 1:
                    how(item.content)
                yield item

    clients = tiny_clients(4, codec=TopK(0.5), **SAME)
    run = run_ours(inline(Spoiling(clients)), clients, Averaging(seed=SEED, fraction_evaluate=0))
    return failures(run)


def put(name: str, **arrays: Any) -> Any:
    def how(content: Any) -> None:
        old = read_arrays(content[name]) if name in content else {}
        content[name] = write_arrays({**old, **arrays})

    return how


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (put("arrays", layout=np.zeros(4, np.uint8)), "cannot be decoded: JSONDecodeError"),
        (put("arrays", places=np.zeros(3, np.int32)), "cannot be decoded: ValueError: places and"),
        (lambda c: c.update(arrays=ConfigRecord({"a": 1})), "cannot be decoded: "),
        (lambda c: c.update(buffers=ConfigRecord({"a": 1})), "cannot be decoded: "),
        (lambda c: c.update(arrays=ArrayRecord()), "cannot be decoded: KeyError: 'places'"),
        (put("buffers", extra=np.zeros(2, np.float32)), "its arrays are named"),
        (put("other", extra=np.zeros(2, np.float32)), "has 2 array records, expected 1"),
        (lambda c: c.pop("arrays"), "it has 0 array records, expected 1"),
    ],
)
def test_what_a_client_may_send_is_its_own_failure(how: Any, reason: str) -> None:
    ((client, failure),) = spoilt(how)
    assert client == 1
    assert reason in failure


def test_values_that_are_not_finite_are_refused_once_decoded() -> None:
    def how(content: Any) -> None:
        sent = read_arrays(content["arrays"])
        content["arrays"] = write_arrays({**sent, "values": sent["values"] * np.nan})

    ((_, failure),) = spoilt(how)
    assert "values that are not finite" in failure


# --- what is refused ---


class Renaming(AsItIs):
    def decode(self, arrays: Any) -> Any:
        return {f"{name}s": array for name, array in arrays.items()}


class Needy(Renaming):
    def encode(self, arrays: Any, *, epsilon: float) -> Any:  # type: ignore[override]
        return arrays


class Forgetful(Renaming):
    def decode(self, arrays: Any, *, rng: Any) -> Any:  # type: ignore[override]
        return arrays


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (Renaming(), r"clients\.codec: decode gave '.*' as None, expected float32 \(.*'linear'"),
        (Needy(), "codec Needy: encode needs 'epsilon', which nobody gives it: expected of rng, "),
        (Forgetful(), "codec Forgetful: decode needs 'rng', .*: expected of received"),
        (mlp, "codec <.*mlp.*: expected one of .*, or an object with encode and decode"),
    ],
)
def test_what_is_no_codec_is_refused_before_anybody_trains(codec: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rehearse_codec(tiny_clients(2, codec=codec))


def test_a_codec_that_a_strategy_would_not_look_at_is_refused() -> None:
    from strategies.server.distillation import DistillationStrategy

    clients = tiny_clients(2, codec=Precision("uint8"))
    distils = partial(DistillationStrategy, distil=None)
    with pytest.raises(ValueError, match=r"clients\.codec: .* answers and no parameters: expected"):
        require_codec(distils, clients)
    require_codec(FedAvg(), clients)
    coded = peers_of(codec=TopK(), messenger=None)
    for strategy in (gossip_of(coded, topology(graphs.ring)), mutual(tiny_clients())):
        with pytest.raises(ValueError, match="the parameters that a client received, and this"):
            require_codec(partial(type(strategy)), coded)
        require_codec(partial(type(strategy)), clients)


def test_a_difference_to_nothing_is_each_clients_failure() -> None:
    clients = tiny_clients(2, codec=TopK())
    strategy = mutual(clients)
    with pytest.raises(Exception, match="the request has no record 'arrays', nothing was received"):
        run_ours(inline(simulated(clients, strategy)), clients, strategy)
    answers = distillation(clients)  # no parameters: nothing to encode
    run = run_ours(inline(simulated(clients, answers)), clients, answers)
    assert not failures(run)
