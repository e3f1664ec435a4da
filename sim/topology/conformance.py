"""Conformance of graphs and of mixing weights: what a rule of a user's own is held to."""

from collections.abc import Iterator
from typing import Any

import networkx as nx
import numpy as np

from clients.points import Call, Point
from clients.signatures import takes
from sim.topology.graphs import complete, line, ring, star, static_exponential
from sim.topology.mixing import check_mixing, push_sum
from sim.topology.sequences import one_peer_exponential
from sim.topology.topology import Topology

PEERS = (2, 4, 8, 16)
"""Sizes that are tried: an odd number has no regular graph of odd degree."""
OFFERED = ("num_peers", "server_round", "rng")
"""What a graph gets if it names it."""


def _topology(rule: Any, num_peers: int, seed: int = 0, whole: bool = False) -> Topology:
    redraw, about = takes(rule, "rng"), {"num_peers": num_peers, "seed": seed}
    return Topology(rule, push_sum, redraw=redraw, require_connected=whole, **about)


def _joins(rule: Any) -> str | None:
    """Gives a graph on the peers 0..n-1, without loops, for 2 to 16 peers in each round."""
    for num_peers in PEERS:
        topology = _topology(rule, num_peers)
        for server_round in range(1, 6):
            topology.graph(server_round)
    return None


def _reaches_all(rule: Any) -> str | None:
    """Lets everybody reach everybody: at once, or over 32 rounds together."""
    for num_peers in PEERS:
        _topology(rule, num_peers, whole=True)
    return None


def _joins_again(rule: Any) -> str | None:
    """Gives the same graph of the same seed and round, whichever was asked for before."""
    forth, back = _topology(rule, 8), _topology(rule, 8)
    edges = {r: sorted(forth.graph(r).edges) for r in range(1, 6)}
    if odd := [r for r in range(5, 0, -1) if sorted(back.graph(r).edges) != edges[r]]:
        return f"another in round {odd[0]}: does it draw from another generator, or keep something?"
    return None


def _weighed(mixing: Any) -> Iterator[tuple[nx.Graph, Any]]:
    """Weigh some graphs; those that it refuses by a ValueError are left out."""
    directed = static_exponential(8, directed=True), one_peer_exponential(8, 2)
    for graph in (ring(8), line(5), star(6), complete(4), *directed):
        try:
            found = mixing(graph)
        except ValueError:
            continue
        yield graph, found


def _weighs(mixing: Any) -> str | None:
    """Weighs edges and oneself by a sparse W [n, n] >= 0 whose rows or columns sum to one."""
    graphs = 0
    for graph, matrix in _weighed(mixing):
        check_mixing(matrix, graph)
        graphs += 1
    return None if graphs else "refuses a ring, a line, a star, all pairs and directed graphs"


def _goes_with_peers(mixing: Any) -> str | None:
    """Goes with the peers when these are renumbered, and is the same again."""
    for graph, matrix in _weighed(mixing):
        order = np.random.default_rng(0).permutation(graph.number_of_nodes())
        turned = nx.empty_graph(len(order), create_using=type(graph))
        turned.add_edges_from((int(order[i]), int(order[j])) for i, j in graph.edges)
        found = mixing(turned).toarray()[np.ix_(order, order)]
        if not np.allclose(found, matrix.toarray(), atol=1e-9):
            return "weights stay where they were: they go by a peer's number"
    return None


TOPOLOGY = Point(
    "topology", "topology.graph", (Call("a networkx Graph or DiGraph on 0..n-1", (), OFFERED),),
    (_joins, _reaches_all, _joins_again),
)  # fmt: skip
MIXING = Point(
    "mixing", "topology.mixing", (Call("weights [n receivers, n senders], csr_array", ("graph",)),),
    (_weighs, _goes_with_peers),
)  # fmt: skip
