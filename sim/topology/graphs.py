"""Rules that give the graph of a federation without a server: those that stay, and random ones.

A rule takes by name what it needs of `num_peers` (n >= 1), `server_round` (1..R) and `rng`, and its
own numbers; it returns a graph on the peers 0..n-1 without self loops. An edge of a directed graph
points from the sender to the receiver; one of an undirected graph is both. Rules over rounds are in
sequences.py, a graph from a file is in edge_file.py.
"""

import math
from collections.abc import Callable
from typing import Annotated

import networkx as nx
import numpy as np

# A draw of 1,000 peers costs about 10 ms: giving up takes 1 s.
MAX_DRAWS = 100


def ring(num_peers: int) -> nx.Graph:
    """Join each peer with the next one, and the last with the first; two peers by one edge.

    Args:
        num_peers: n >= 1.

    Returns:
        The cycle.
    """
    return nx.circulant_graph(num_peers, [1] if num_peers > 1 else [])


def line(num_peers: int) -> nx.Graph:
    """Join each peer with the next one: the path, the slowest connected graph there is.

    Args:
        num_peers: n >= 1.

    Returns:
        The path.
    """
    return nx.path_graph(num_peers)


def star(num_peers: int) -> nx.Graph:
    """Join peer 0, the hub, with every other one.

    Args:
        num_peers: n >= 1.

    Returns:
        The star. A hub relays in the next round only, unlike a server.
    """
    return nx.star_graph(num_peers - 1)


def complete(num_peers: int) -> nx.Graph:
    """Join every two peers.

    Args:
        num_peers: n >= 1.

    Returns:
        The complete graph.
    """
    return nx.complete_graph(num_peers)


def torus(num_peers: int, *, rows: Annotated[int, ">= 1"] | None = None) -> nx.Graph:
    """Lay the peers out row by row on a grid whose borders meet: up to four neighbours each.

    Args:
        num_peers: n >= 1.
        rows: A divisor of n, or None for the largest one that is not above sqrt(n). A prime n has
            one row, which is a ring; two rows give three neighbours.

    Returns:
        The torus; peer `row * columns + column`.

    Raises:
        ValueError: `rows` is not a divisor.
    """
    if rows is None:
        rows = next(r for r in range(math.isqrt(num_peers), 0, -1) if num_peers % r == 0)
    if rows < 1 or num_peers % rows:
        raise ValueError(f"rows={rows}: expected a divisor of num_peers={num_peers}, or null")
    grid = nx.grid_2d_graph(rows, num_peers // rows, periodic=True)
    return nx.convert_node_labels_to_integers(grid)


def static_exponential(num_peers: int, *, directed: bool = False) -> nx.Graph:
    """Join peer i with i +- 2^m (mod n), for every 2^m < n.

    Args:
        num_peers: n >= 1.
        directed: Send to i + 2^m only: ceil(log2 n) receivers each.

    Returns:
        The graph, a DiGraph if `directed`.

    Reference:
        Ying and others, NeurIPS 2021, arXiv:2110.13363 (directed); Lian and others, ICML 2018.
    """
    offsets = [2**m for m in range(num_offsets(num_peers))]
    if not directed:
        return nx.circulant_graph(num_peers, offsets)
    graph = nx.empty_graph(num_peers, create_using=nx.DiGraph)
    graph.add_edges_from((i, (i + step) % num_peers) for i in range(num_peers) for step in offsets)
    return graph


def num_offsets(num_peers: int) -> int:
    """Count the powers of two below n: ceil(log2 n), which is floor(log2(n - 1)) + 1 for n > 1."""
    return (num_peers - 1).bit_length()


def clusters(
    num_peers: int, *, num_clusters: Annotated[int, ">= 1"] = 2, bridges: bool = True
) -> nx.Graph:
    """Join all peers of a cluster, and each cluster by one edge with the next: a ring of cliques.

    Args:
        num_peers: n >= 1; runs of consecutive peers are the clusters, their sizes differ by at most
            one, the larger ones first.
        num_clusters: In 1..n. Two clusters have one bridge. A bridge leads from the last peer of a
            cluster to the first of the next.
        bridges: Whether clusters are joined at all.

    Returns:
        The graph.

    Raises:
        ValueError: There are more clusters than peers, or none.
    """
    if not 1 <= num_clusters <= num_peers:
        raise ValueError(f"num_clusters={num_clusters}: expected 1..num_peers={num_peers}")
    runs = [run.tolist() for run in np.array_split(np.arange(num_peers), num_clusters)]
    graph = nx.empty_graph(num_peers)
    for run in runs:
        graph.add_edges_from(nx.complete_graph(run).edges)
    if not bridges:
        return graph
    following = [*runs[1:], *(runs[:1] if num_clusters > 2 else [])]
    graph.add_edges_from((a[-1], b[0]) for a, b in zip(runs, following, strict=False))
    return graph


def k_regular(
    num_peers: int,
    rng: np.random.Generator,
    *,
    degree: Annotated[int, ">= 1"] = 4,
    connected: bool = True,
) -> nx.Graph:
    """Draw a graph in which every peer has `degree` neighbours.

    Args:
        num_peers: n >= 1.
        rng: Draws the graph.
        degree: >= 1; from n on it is n - 1, the complete graph.
        connected: Draw again, at most 100 times, until the graph is connected.

    Returns:
        The graph.

    Raises:
        ValueError: Degree and n are both odd, which no graph has; or no draw was connected.
    """
    _require_degree(degree)
    nearest = min(degree, num_peers - 1)
    if num_peers * nearest % 2:
        raise ValueError(
            f"degree={degree}: expected an even degree for an odd number of peers, "
            f"{degree - 1} or {degree + 1} for num_peers={num_peers}"
        )
    return _drawn(
        lambda: nx.random_regular_graph(nearest, num_peers, seed=rng),
        connected,
        f"degree={degree}, num_peers={num_peers}: raise degree",
    )


def small_world(
    num_peers: int,
    rng: np.random.Generator,
    *,
    degree: Annotated[int, ">= 1"] = 4,
    rewiring_probability: Annotated[float, "in [0, 1]"] = 0.2,
) -> nx.Graph:
    """Draw a Watts-Strogatz graph: a ring of `degree` nearest neighbours, some edges rewired.

    Args:
        num_peers: n >= 1.
        rng: Draws the rewiring.
        degree: Even, >= 2, the mean number of neighbours; from n on the graph is complete.
        rewiring_probability: That an edge gets another end, in [0, 1].

    Returns:
        The graph, drawn again, at most 100 times, until it is connected.

    Raises:
        ValueError: A number is out of range, or no draw was connected.

    Reference:
        Watts and Strogatz, Nature 393, 1998.
    """
    _require_degree(degree)
    if degree % 2:
        raise ValueError(f"degree={degree}: expected an even number, half on either side")
    _require_probability("rewiring_probability", rewiring_probability)
    nearest = min(degree, num_peers)  # networkx makes n neighbours the complete graph
    return _drawn(
        lambda: nx.watts_strogatz_graph(num_peers, nearest, rewiring_probability, seed=rng),
        True,
        f"degree={degree}, rewiring_probability={rewiring_probability}, num_peers={num_peers}: "
        "raise degree or lower rewiring_probability",
    )


def erdos_renyi(
    num_peers: int,
    rng: np.random.Generator,
    *,
    edge_probability: Annotated[float, "in [0, 1]"] = 0.5,
    connected: bool = True,
) -> nx.Graph:
    """Join every two peers with the same probability.

    Args:
        num_peers: n >= 1.
        rng: Draws the edges.
        edge_probability: In [0, 1]; above log(n) / n most draws are connected.
        connected: Draw again, at most 100 times, until the graph is connected.

    Returns:
        The graph.

    Raises:
        ValueError: The probability is out of range, or no draw was connected.
    """
    _require_probability("edge_probability", edge_probability)
    return _drawn(
        lambda: nx.fast_gnp_random_graph(num_peers, edge_probability, seed=rng),
        connected,
        f"edge_probability={edge_probability}, num_peers={num_peers}: raise edge_probability",
    )


def _drawn(draw: Callable[[], nx.Graph], connected: bool, advice: str) -> nx.Graph:
    for _ in range(MAX_DRAWS):
        graph = draw()
        if not connected or nx.is_connected(graph):
            return graph
    raise ValueError(f"none of {MAX_DRAWS} draws was connected with {advice}")


def _require_degree(degree: int) -> None:
    if degree < 1:
        raise ValueError(f"degree={degree}: expected an integer >= 1")


def _require_probability(key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{key}={value}: expected a probability in [0, 1]")
