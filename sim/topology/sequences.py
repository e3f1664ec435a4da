"""Rules whose graph is another one in every round; graphs.py says what a rule is.

Those that take `server_round` always change. Those that only draw (matchings, epidemic) change with
`redraw: true`, as their YAML files have it.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import networkx as nx
import numpy as np

from clients.signatures import takes
from sim.topology.graphs import num_offsets

Rule = Callable[..., nx.Graph]


def one_peer_exponential(num_peers: int, server_round: int) -> nx.Graph:
    """Let peer i send to i + 2^m (mod n) only, m = (round - 1) mod L with L = ceil(log2 n).

    With weights of 1/2 (`mixing: uniform`) L rounds give the exact average if n = 2^L. With
    `mixing: replace` it is ProxyFL's permutation, whose floor(log2(n - 1)) + 1 is the same L.

    Args:
        num_peers: n >= 1.
        server_round: 1..R.

    Returns:
        A DiGraph with one receiver and one sender for each peer.

    Reference:
        Ying and others, NeurIPS 2021, arXiv:2110.13363; ProxyFL (Kalra and others, Nature
        Communications 14, 2023, arXiv:2111.11343).
    """
    graph = nx.empty_graph(num_peers, create_using=nx.DiGraph)
    if num_peers > 1:
        step = 2 ** ((server_round - 1) % num_offsets(num_peers))
        graph.add_edges_from((i, (i + step) % num_peers) for i in range(num_peers))
    return graph


def random_matchings(num_peers: int, rng: np.random.Generator) -> nx.Graph:
    """Pair the peers at random; of an odd number one has no partner.

    Args:
        num_peers: n >= 1.
        rng: Draws the pairs; every perfect matching is equally likely.

    Returns:
        A graph of n // 2 edges without a common peer.

    Reference:
        Boyd, Ghosh, Prabhakar and Shah, "Randomized gossip algorithms", 2006, synchronous.
    """
    order = rng.permutation(num_peers).tolist()
    graph = nx.empty_graph(num_peers)
    graph.add_edges_from(zip(order[0::2], order[1::2], strict=False))
    return graph


def epidemic(
    num_peers: int, rng: np.random.Generator, *, receivers: Annotated[int, ">= 1"] = 2
) -> nx.Graph:
    """Let each peer send to so many others, drawn at random.

    Args:
        num_peers: n >= 1.
        rng: Draws each peer's receivers, all different.
        receivers: How many, >= 1; all the others from n - 1 on.

    Returns:
        A DiGraph; how many senders a peer hears of is random, so that the mixing is `push_sum`.

    Raises:
        ValueError: `receivers` is below 1.

    Reference:
        Epidemic learning (de Vos and others, NeurIPS 2023, arXiv:2310.01972).
    """
    if receivers < 1:
        raise ValueError(f"receivers={receivers}: expected an integer >= 1")
    graph = nx.empty_graph(num_peers, create_using=nx.DiGraph)
    number = min(receivers, num_peers - 1)
    for sender in range(num_peers if number else 0):
        others = sender + 1 + rng.choice(num_peers - 1, size=number, replace=False)
        graph.add_edges_from((sender, int(receiver)) for receiver in others % num_peers)
    return graph


def sequence(
    num_peers: int, server_round: int, rng: np.random.Generator, *, rules: Sequence[Rule]
) -> nx.Graph:
    """Take one rule after the other, round by round, and begin again after the last.

    Args:
        num_peers: n >= 1.
        server_round: 1..R; round 1 has the first rule.
        rng: For the rule whose turn it is; random graphs are drawn anew each time.
        rules: At least one.

    Returns:
        That rule's graph.

    Raises:
        ValueError: There are no rules.
    """
    if not rules:
        raise ValueError("rules=[]: expected at least one rule")
    rule = rules[(server_round - 1) % len(rules)]
    return apply_rule(rule, num_peers=num_peers, server_round=server_round, rng=rng)


def apply_rule(rule: Rule, **offered: Any) -> nx.Graph:
    """Call a rule with what it takes of `num_peers`, `server_round` and `rng`."""
    return rule(**{name: value for name, value in offered.items() if takes(rule, name)})
