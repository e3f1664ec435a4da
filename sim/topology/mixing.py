"""Rules that turn a graph into a mixing matrix W: row i is what receiver i takes of each sender.

W is [n, n], float64, sparse, itself included, with indices in order, so that sums over senders are
in the order of peers. `metropolis_hastings`, `uniform` and `replace` are doubly stochastic, so the
mean over peers stays what it is; `push_sum` keeps the sum only and needs the weights carried along.
Rows alone are never normalised: columns would not sum to one on an irregular graph (on a path of
three .83, 1.33, .83), and the peers would agree on something else than their mean.
"""

from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
from scipy import sparse

from sim.topology.spectrum import contraction

TOLERANCE = 1e-9
"""How far sums of weights may be from one: well above rounding, 1e-13 for 1,000 neighbours."""


def metropolis_hastings(graph: nx.Graph) -> sparse.csr_array:
    """Weigh an edge by 1 / (1 + max(d_i, d_j)), and keep the rest.

    Args:
        graph: Undirected.

    Returns:
        Symmetric and doubly stochastic, [n, n].

    Raises:
        ValueError: The graph is directed.

    Reference:
        Xiao and Boyd 2004, "Fast linear iterations for distributed averaging"; D-PSGD, Lian and
        others, NeurIPS 2017, arXiv:1705.09056.
    """
    if graph.is_directed():
        raise ValueError(
            "metropolis_hastings needs an undirected graph: take topology/mixing=push_sum for a "
            "directed one, or uniform where everybody sends to as many as it hears of"
        )
    links = adjacency(graph).tocoo()
    degrees = links.sum(axis=1)
    weights = 1 / (1 + np.maximum(degrees[links.row], degrees[links.col]))
    others = sparse.coo_array((weights, (links.row, links.col)), shape=links.shape)
    return _with_diagonal(others, 1 - others.sum(axis=1))


def uniform(graph: nx.Graph) -> sparse.csr_array:
    """Weigh every edge by 1 / (1 + the largest degree), and keep the rest.

    On a regular graph that is 1 / (degree + 1) for each neighbour and oneself, 1/n if complete.

    Args:
        graph: Undirected; or directed, if each peer sends to as many as it hears of.

    Returns:
        Doubly stochastic, [n, n].

    Raises:
        ValueError: The graph is directed and not balanced.

    Reference:
        Maximum-degree weights, Xiao and Boyd 2004.
    """
    links = adjacency(graph)
    heard, sent = links.sum(axis=1), links.sum(axis=0)
    unbalanced = np.flatnonzero(heard != sent)
    if len(unbalanced):
        peer = int(unbalanced[0])
        raise ValueError(
            f"uniform needs a balanced graph, but peer {peer} hears of {int(heard[peer])} and "
            f"sends to {int(sent[peer])}: take topology/mixing=push_sum"
        )
    share = 1 + heard.max(initial=0)
    return _with_diagonal(links / share, (share - heard) / share)


def push_sum(graph: nx.Graph) -> sparse.csr_array:
    """Let each sender split evenly over itself and its receivers: 1 / (number of receivers + 1).

    Peers keep (x, a), a = 1 at first, send both through W and read x / a, which tends to the mean
    of all on any strongly connected graph.

    Args:
        graph: Directed or not.

    Returns:
        Column-stochastic, [n, n].

    Reference:
        Kempe, Dobra and Gehrke, FOCS 2003; Assran and others, ICML 2019, arXiv:1811.10792.
    """
    links = adjacency(graph)
    shares = 1 / (1 + links.sum(axis=0))
    return _with_diagonal(links @ sparse.diags_array(shares), shares)


def replace(graph: nx.Graph) -> sparse.csr_array:
    """Take only what arrives, and one's own where nothing does, as ProxyFL does.

    Args:
        graph: With one sender and one receiver for each peer, or none.

    Returns:
        A permutation matrix, [n, n].

    Raises:
        ValueError: A peer has several senders or receivers, or one of these only.

    Reference:
        Kalra and others, Nature Communications 14, 2023, arXiv:2111.11343.
    """
    links = adjacency(graph)
    heard, sent = links.sum(axis=1), links.sum(axis=0)
    wrong = np.flatnonzero((heard > 1) | (heard != sent))
    if len(wrong):
        peer = int(wrong[0])
        raise ValueError(
            f"replace needs one sender and one receiver for each peer, or none, but peer {peer} "
            f"hears of {int(heard[peer])} and sends to {int(sent[peer])}: take another "
            "topology/mixing, or topology=one_peer_exponential or random_matchings"
        )
    return _with_diagonal(links, 1 - heard)


def adjacency(graph: nx.Graph) -> sparse.csr_array:
    """Return who hears of whom.

    Args:
        graph: On the nodes 0..n-1.

    Returns:
        [n receivers, n senders], float64, 1 where there is an edge.
    """
    nodes = range(graph.number_of_nodes())
    array = nx.to_scipy_sparse_array(graph, nodelist=nodes, weight=None, dtype=np.float64)
    return _sorted(array.T)


def spectral_gap(matrix: sparse.csr_array) -> float:
    """Return 1 - ||W - J/n||_2: 0 if not connected, 1 if one round gives everybody the mean.

    Exact to rounding up to 500 peers, within 1e-6 beyond.

    Args:
        matrix: W [n, n], its rows sum to one.

    Returns:
        In [0, 1] for a doubly stochastic W.
    """
    return 1 - contraction([matrix])


def is_doubly_stochastic(matrix: sparse.csr_array) -> bool:
    """Tell whether no weight is negative and all rows and columns sum to one, within 1e-9."""
    return bool(matrix.min() >= 0) and _sums_to_one(matrix, 0) and _sums_to_one(matrix, 1)


def check_mixing(matrix: sparse.csr_array, graph: nx.Graph) -> None:
    """Refuse a matrix that does not belong to the graph; a rule may be the user's own.

    Args:
        matrix: What a mixing rule returned.
        graph: What it was given.

    Raises:
        ValueError: The shape is another, a weight is negative or not finite or has no edge, or
            neither the rows nor the columns sum to one.
    """
    n = graph.number_of_nodes()
    if matrix.shape != (n, n):
        raise ValueError(f"topology.mixing: a matrix {matrix.shape}, expected ({n}, {n})")
    if not np.isfinite(matrix.data).all() or (matrix.data < 0).any():
        raise ValueError("topology.mixing: weights that are negative or not finite")
    if not _sums_to_one(matrix, 0) and not _sums_to_one(matrix, 1):
        raise ValueError("topology.mixing: expected rows or columns, or both, that sum to one")
    allowed = adjacency(graph) + sparse.eye_array(n, format="csr")
    foreign = ((matrix != 0) > (allowed != 0)).tocoo()
    if foreign.nnz:
        pair = f"receiver {foreign.row[0]}, sender {foreign.col[0]}"
        raise ValueError(f"topology.mixing: a weight without an edge: {pair}")


def _sums_to_one(matrix: sparse.csr_array, axis: int) -> bool:
    sums: npt.NDArray[np.float64] = matrix.sum(axis=axis)
    return bool((np.abs(sums - 1) <= TOLERANCE).all())


def _with_diagonal(others: Any, diagonal: npt.NDArray[np.float64]) -> sparse.csr_array:
    matrix = sparse.csr_array(others) + sparse.diags_array(diagonal, format="csr")
    matrix.eliminate_zeros()
    return _sorted(matrix)


def _sorted(array: Any) -> sparse.csr_array:
    matrix: sparse.csr_array = sparse.csr_array(array)
    matrix.sort_indices()
    return matrix
