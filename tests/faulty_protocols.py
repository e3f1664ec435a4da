"""Handlers, strategies, graphs and weights with seeded faults, and the lines that tell of them."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from scipy import sparse

from clients.handlers.base import Handler, each
from sim.topology.mixing import metropolis_hastings
from strategies.base import BaseStrategy

# --- handlers ---


def count(clients: Any, request: Message, context: Any, device: str) -> RecordDict:
    """Say how many examples a client has."""
    own = clients.partitions[context.node_config["partition-id"]]
    return RecordDict({"metrics": MetricRecord({"num-examples": len(own)})})


def lost(clients: Any, request: Message, context: Any, device: str) -> RecordDict:
    return RecordDict({"metrics": MetricRecord({"num-examples": 2, "loss": float("nan")})})


def crowded(clients: Any, requests: Any, contexts: Any, device: str) -> Iterator[Message]:
    """Let a client say how many were asked."""
    for request in requests:
        content = RecordDict({"metrics": MetricRecord({"num-examples": len(requests)})})
        yield Message(content, reply_to=request)


def minus(clients: Any, client_id: int, content: Any) -> float:
    return -1.0


COUNT = Handler("train.count", each(count))


# --- strategies ---


class Counting(BaseStrategy):
    """Ask everybody how many examples there are, and add up those of all rounds: no fault in it."""

    handlers = (COUNT,)
    has_student = False

    def __init__(self) -> None:
        self.total = 0.0

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
        content = RecordDict({"config": ConfigRecord({"server-round": server_round})})
        return [Message(content, node_id, COUNT.kind) for node_id in grid.get_node_ids()]

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        usable = [reply.content for reply in replies if reply.has_content()]
        self.total += sum(float(each.metric_records["metrics"]["num-examples"]) for each in usable)  # type: ignore[arg-type]
        return None, MetricRecord({"total": self.total})

    def state(self) -> RecordDict:
        return RecordDict({"total": MetricRecord({"total": self.total})})

    def restore(self, state: RecordDict) -> None:
        self.total = float(state.metric_records["total"]["total"])  # type: ignore[arg-type]


class Idle(Counting):
    def configure_train(self, *what: Any) -> Any:
        return []


class Restless(Counting):
    turns = itertools.count()

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        return None, MetricRecord({"turn": next(self.turns)})


class Forgetful(Counting):
    def restore(self, state: RecordDict) -> None: ...


class Touchy(Counting):
    """Look at what every client sent, whether there is something or not."""

    handlers = ()

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
        content = RecordDict({"arrays": arrays})
        return [Message(content, node_id, "train") for node_id in grid.get_node_ids()]

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        return None, MetricRecord({"first": len([reply.content for reply in replies])})


class Odd(Counting):
    """Send a key that nobody reads."""

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
        content = RecordDict({"config": ConfigRecord({"learning-rate": 0.1})})
        return [Message(content, node_id, COUNT.kind) for node_id in grid.get_node_ids()]


# --- graphs and weights ---


def looped(num_peers: int) -> nx.Graph:
    graph = nx.cycle_graph(num_peers)
    graph.add_edge(0, 0)
    return graph


def pairs(num_peers: int) -> nx.Graph:
    graph = nx.empty_graph(num_peers)
    graph.add_edges_from((i, i + 1) for i in range(0, num_peers - 1, 2))
    return graph


def drawn(num_peers: int, server_round: int) -> nx.Graph:
    order = np.random.permutation(num_peers).tolist()
    return nx.relabel_nodes(nx.path_graph(num_peers), dict(enumerate(order)))


def heavy(graph: nx.Graph) -> sparse.csr_array:
    return metropolis_hastings(graph) * 2


def favouring(graph: nx.Graph) -> sparse.csr_array:
    """Let peer 0 hear of nobody, and nobody of it."""
    matrix = metropolis_hastings(graph).tolil()
    for other in list(graph[0]):
        matrix[other, other] += matrix[other, 0]
        matrix[0, other] = matrix[other, 0] = 0
    matrix[0, 0] = 1
    return sparse.csr_array(matrix)


def never(graph: nx.Graph) -> sparse.csr_array:
    raise ValueError("of no graph")


FAULTS: list[tuple[str, Any, str]] = [
    ("handler", Handler("train.x", each(lambda *what: RecordDict())), "FAIL  Is a Handler, which"),
    ("handler", count, "is a function, expected a clients.handlers.base.Handler"),
    ("handler", replace(COUNT, answer=each(lost)), "a reply is of no use: .*loss"),
    ("handler", replace(COUNT, answer=crowded), "client 0 says another 'metrics/num-examples'"),
    ("handler", replace(COUNT, multiplications=minus), "counts -1"),
    ("strategy", Idle, "none fails: asks nobody in round 1"),
    ("strategy", Odd, "none fails: .*key 'learning-rate' of a 'train.count' request"),
    ("strategy", Restless, "same bits again.*: 'train' of round 2 differs"),
    ("strategy", Forgetful, "as if it had never stopped.*: 'train' of round 2 differs"),
    ("strategy", Touchy, "Goes on without a client that fails: "),
    ("round_probe", lambda view: {}, "finds nothing"),
    ("round_probe", lambda view: {"first": float(view.weights[0, 0])}, "FAIL  Bears a round in wh"),
    ("round_probe", lambda view: {"any": np.random.random()}, "finds something else"),
    ("topology", looped, "expected no self loops"),
    ("topology", pairs, "everybody reach everybody.*is not connected"),
    ("topology", drawn, "another in round 5: does it draw from another generator"),
    ("mixing", heavy, "sum to one"),
    ("mixing", never, "refuses a ring, a line"),
    ("mixing", favouring, "weights stay where they were: they go by a peer's number"),
]
"""Kind, plug-in, and what is said of it."""
