"""Peers that send what does not fit, fail or say nothing; rules that fail."""

from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from clients.app import SimulatedApp
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import client_id_of
from clients.population.clients import SimulatedClients
from sim.engine.grid import PoolGrid
from sim.engine.quorum import QuorumLost
from sim.topology import graphs
from sim.topology.mixing import push_sum
from strategies.aggregation.combiners import mean_of_probs
from tests.federations import HANDLERS, handlers_of, inline, run_ours, simulated, tiny_clients
from tests.peers import N, alike, averaging, gossip, played, topology

# --- equal bits, faults, resume ---


class Lying(SimulatedApp):
    """Peer 1 sends neighbours what cannot be mixed."""

    def __init__(self, clients: SimulatedClients, spoil: Any) -> None:
        super().__init__(clients, HANDLERS)
        self._spoil = spoil

    def serve(self, requests: Any, contexts: Any, device: str = "cpu") -> Any:
        for request, answer in zip(
            requests, super().serve(requests, contexts, device), strict=True
        ):
            mine = client_id_of(request.metadata.dst_node_id) == 1
            if mine and request.metadata.message_type == "train.own":
                self._spoil(answer.content)
            yield answer


def other_shape(content: Any) -> None:
    arrays = read_arrays(content["arrays"])
    content["arrays"] = write_arrays({name: value[:1] for name, value in arrays.items()})


def other_names(content: Any) -> None:
    content["arrays"] = write_arrays({"w": np.zeros(3, dtype=np.float32)})


def no_weight(content: Any) -> None:
    content["metrics"]["push-weight"] = -3.0


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(other_shape, "float32["), (other_names, "is None, expected"), (no_weight, "push-weight")],
)
def test_what_a_peer_sends_is_screened_before_it_is_mixed(spoil: Any, reason: str) -> None:
    clients = alike()
    graph = topology(graphs.ring, push_sum)
    strategy = averaging(clients, graph, push=True, missing="sender")
    run = run_ours(inline(Lying(clients, spoil)), clients, strategy)
    (failure,) = [e for e in run.reports[0].exchanges if e.failure]
    assert failure.client_id == 1
    assert reason in failure.failure


class Deaf(SimulatedApp):
    """Nobody can take in what neighbours sent."""

    def serve(self, requests: Any, contexts: Any, device: str = "cpu") -> Any:
        for request, answer in zip(
            requests, super().serve(requests, contexts, device), strict=True
        ):
            taking = request.metadata.message_type == "train.take"
            yield OSError("no disk left") if taking else answer


def test_the_quorum_is_of_each_kind_of_message() -> None:
    clients = alike()
    strategy = averaging(clients, topology(graphs.ring))
    with pytest.raises(QuorumLost, match=r"only 0 of 5 .*phase train\.take: OSError"):
        run_ours(inline(Deaf(clients, HANDLERS)), clients, strategy)


class Raising(SimulatedApp):
    """Peer 1 cannot train."""

    def serve(self, requests: Any, contexts: Any, device: str = "cpu") -> Any:
        for request, answer in zip(
            requests, super().serve(requests, contexts, device), strict=True
        ):
            mine = client_id_of(request.metadata.dst_node_id) == 1
            trains = request.metadata.message_type.startswith(("train.p", "train.o"))
            yield OSError("no disk left") if mine and trains else answer


@pytest.mark.parametrize("make", [gossip, averaging])
def test_a_peer_that_fails_is_a_missing_neighbour(make: Any) -> None:
    clients = alike()
    strategy = make(clients, topology(graphs.ring), missing="renormalise")
    run = run_ours(inline(Raising(clients, handlers_of(strategy))), clients, strategy)
    failed = {e.client_id: e.failure for e in run.reports[0].exchanges if e.failure}
    assert failed == {1: "OSError: no disk left"}
    assert run.reports[0].train["messages"] == 10.0 - 2.0  # nobody hears peer 1, and it hears two


def test_a_rule_that_fails_where_peers_are_ends_the_run_with_its_traceback() -> None:
    clients = tiny_clients()
    strategy = gossip(clients, topology(graphs.ring))
    object.__setattr__(strategy.rule, "combiner", _broken)
    with pytest.raises(RuntimeError, match=r"(?s)rule failed where clients run:.*my combiner"):
        played(inline(None), clients, strategy, 1)


def _broken(logits: Any, weights: Any, temperature: float) -> Any:
    if len(logits) < N:  # not where all peers are one neighbourhood
        raise ZeroDivisionError("my combiner")
    return mean_of_probs(logits, weights, temperature)


# --- what is reported, and what is refused ---


def test_a_payload_that_is_not_there_is_named() -> None:
    from clients.messages.payload_routing import Letter, Post

    clients = tiny_clients()
    grid = PoolGrid(inline(simulated(clients)), clients.architectures)
    grid.begin_round(1)
    content = RecordDict({"config": ConfigRecord({"server-round": 1})})
    ask = [Message(content, dst_node_id=next(iter(grid.get_node_ids())), message_type="query.own")]
    post = Post({0: [Letter(3, "answers@1", 1.0)]}, lambda receiver, letters: RecordDict())
    with pytest.raises(KeyError, match="answers@1"):
        list(grid.send_with_post(ask, post, None))
