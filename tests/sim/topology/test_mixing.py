"""Mixing matrices: worked vectors, and what holds for every graph."""

from collections.abc import Callable

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sim.topology import graphs, mixing, sequences
from sim.topology.mixing import is_doubly_stochastic, metropolis_hastings, spectral_gap
from sim.topology.topology import Topology

# --- worked by hand ---


def test_metropolis_hastings_on_a_path_of_three() -> None:
    expected = np.array([[2, 1, 0], [1, 1, 1], [0, 1, 2]]) / 3
    np.testing.assert_allclose(
        metropolis_hastings(nx.path_graph(3)).toarray(), expected, atol=1e-15
    )


def test_uniform_on_a_path_of_three_is_not_row_normalised() -> None:
    expected = np.array([[2, 1, 0], [1, 1, 1], [0, 1, 2]]) / 3
    assert np.array_equal(mixing.uniform(nx.path_graph(3)).toarray(), expected)
    cherry = nx.Graph([(0, 1), (1, 2), (1, 3)])
    np.testing.assert_array_equal(
        np.diag(mixing.uniform(cherry).toarray()), [3 / 4, 1 / 4, 3 / 4, 3 / 4]
    )


@pytest.mark.parametrize("num_peers", [1, 2, 3, 7, 10])
def test_uniform_on_a_complete_graph_is_exactly_one_nth(num_peers: int) -> None:
    matrix = mixing.uniform(graphs.complete(num_peers)).toarray()
    assert np.array_equal(matrix, np.full((num_peers, num_peers), 1 / num_peers))


def test_push_sum_and_replace_by_hand() -> None:
    chain = nx.DiGraph([(0, 1), (0, 2), (1, 2)])
    expected = [[1 / 3, 0, 0], [1 / 3, 1 / 2, 0], [1 / 3, 1 / 2, 1]]
    np.testing.assert_array_equal(mixing.push_sum(chain).toarray(), expected)
    shift = nx.DiGraph([(0, 1), (1, 2), (2, 0)])
    np.testing.assert_array_equal(
        mixing.replace(shift).toarray(), [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    )
    pair = nx.Graph([(0, 1)])
    pair.add_node(2)
    np.testing.assert_array_equal(mixing.replace(pair).toarray(), [[0, 1, 0], [1, 0, 0], [0, 0, 1]])


def test_row_normalised_weights_are_not_doubly_stochastic() -> None:
    path = mixing.adjacency(nx.path_graph(3)).toarray() + np.eye(3)
    rows = sparse.csr_array(path / path.sum(axis=1, keepdims=True))
    assert not is_doubly_stochastic(rows)
    assert not is_doubly_stochastic(rows.T.tocsr())
    assert not is_doubly_stochastic(sparse.csr_array(np.array([[1.5, -0.5], [-0.5, 1.5]])))


# --- properties of mixing ---


UNDIRECTED: dict[str, Callable[[int, np.random.Generator], nx.Graph]] = {
    "ring": lambda n, rng: graphs.ring(n),
    "line": lambda n, rng: graphs.line(n),
    "star": lambda n, rng: graphs.star(n),
    "torus": lambda n, rng: graphs.torus(n),
    "complete": lambda n, rng: graphs.complete(n),
    "static_exponential": lambda n, rng: graphs.static_exponential(n),
    "clusters": lambda n, rng: graphs.clusters(n, num_clusters=int(rng.integers(1, n + 1))),
    "k_regular": lambda n, rng: graphs.k_regular(n, rng, degree=2 * int(rng.integers(2, 4))),
    "small_world": lambda n, rng: graphs.small_world(n, rng, rewiring_probability=rng.random()),
    "erdos_renyi": lambda n, rng: graphs.erdos_renyi(
        n, rng, edge_probability=rng.random(), connected=False
    ),
    "random_matchings": sequences.random_matchings,
}


@pytest.mark.parametrize("name", UNDIRECTED)
@settings(max_examples=25, deadline=None)
@given(num_peers=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_weights_of_undirected_graphs_are_doubly_stochastic(
    name: str, num_peers: int, seed: int
) -> None:
    graph = UNDIRECTED[name](num_peers, np.random.default_rng(seed))
    symmetric = metropolis_hastings(graph).toarray()
    assert np.array_equal(symmetric, symmetric.T)
    for matrix in (metropolis_hastings(graph), mixing.uniform(graph)):
        assert is_doubly_stochastic(matrix)
        mixing.check_mixing(matrix, graph)
        assert -1e-12 <= spectral_gap(matrix) <= 1 + 1e-12
    column = mixing.push_sum(graph)
    np.testing.assert_allclose(column.sum(axis=0), 1, atol=1e-14)
    mixing.check_mixing(column, graph)


@settings(max_examples=30, deadline=None)
@given(num_peers=st.integers(2, 40), directed=st.booleans(), server_round=st.integers(1, 100))
def test_exponential_graphs_are_balanced(num_peers: int, directed: bool, server_round: int) -> None:
    graph = graphs.static_exponential(num_peers, directed=directed)
    assert is_doubly_stochastic(mixing.uniform(graph))
    if directed:
        weights = mixing.uniform(graph).data
        np.testing.assert_allclose(weights, 1 / (graphs.num_offsets(num_peers) + 1))
    one = mixing.uniform(sequences.one_peer_exponential(num_peers, server_round))
    assert np.array_equal(one.data, np.full(2 * num_peers, 0.5))


@pytest.mark.parametrize("num_peers", [5, 12])
def test_push_sum_finds_the_mean_on_an_unbalanced_directed_graph(num_peers: int) -> None:
    graph = nx.DiGraph([(i, (i + 1) % num_peers) for i in range(num_peers)])
    graph.add_edges_from([(0, 2), (0, 3), (3, 1)])
    graph = nx.DiGraph(nx.to_numpy_array(graph, nodelist=range(num_peers)))
    topology = Topology(lambda: graph, mixing.push_sum, num_peers=num_peers, seed=0)
    matrix, start = topology.mixing(1), np.arange(num_peers, dtype=float) ** 2
    x, a = start.copy(), np.ones(num_peers)
    for _ in range(600):
        x, a = matrix @ x, matrix @ a
    assert not np.allclose(a, 1)
    np.testing.assert_allclose(x / a, start.mean(), rtol=1e-9)
    report = topology.report()
    assert not report["doubly_stochastic"]
    assert 0 < report["spectral_gap"] < 1
