"""Graphs: edges by hand, and what random rules say of themselves."""

import math
from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pytest

from sim.topology import graphs, sequences


def drawn(rule: Callable[..., nx.Graph], num_peers: int, seed: int = 0, **numbers: Any) -> nx.Graph:
    return rule(num_peers, np.random.default_rng(seed), **numbers)


def test_edges_of_small_graphs() -> None:
    assert set(graphs.ring(4).edges) == {(0, 1), (1, 2), (2, 3), (0, 3)}
    assert set(graphs.ring(2).edges) == {(0, 1)}
    assert set(graphs.line(3).edges) == {(0, 1), (1, 2)}
    assert set(graphs.star(3).edges) == {(0, 1), (0, 2)}
    directed = graphs.static_exponential(5, directed=True)
    assert set(directed.out_edges(3)) == {(3, 4), (3, 0), (3, 2)}
    assert set(graphs.clusters(5, num_clusters=2).edges) == {(0, 1), (0, 2), (1, 2), (2, 3), (3, 4)}
    assert graphs.clusters(6, num_clusters=3).number_of_edges() == 3 + 3
    assert nx.is_isomorphic(graphs.clusters(6, num_clusters=6), graphs.ring(6))
    assert nx.is_isomorphic(graphs.clusters(6, num_clusters=1), graphs.complete(6))


def test_a_torus_is_as_square_as_can_be_and_a_ring_where_n_is_prime() -> None:
    assert set(dict(graphs.torus(12, rows=3).degree).values()) == {4}
    assert nx.is_isomorphic(graphs.torus(12), graphs.torus(12, rows=3))
    assert set(graphs.torus(12).neighbors(0)) == {1, 3, 4, 8}
    assert set(dict(graphs.torus(8).degree).values()) == {3}
    assert nx.utils.graphs_equal(graphs.torus(7), graphs.ring(7))


def test_random_rules_give_what_they_say() -> None:
    assert set(dict(drawn(graphs.k_regular, 20, degree=3).degree).values()) == {3}
    assert set(dict(drawn(graphs.k_regular, 4, degree=9).degree).values()) == {3}
    lattice = drawn(graphs.small_world, 20, rewiring_probability=0.0)
    assert nx.utils.graphs_equal(lattice, nx.circulant_graph(20, [1, 2]))
    rewired = drawn(graphs.small_world, 20, rewiring_probability=0.5)
    assert rewired.number_of_edges() == 40
    assert not nx.utils.graphs_equal(lattice, rewired)
    assert drawn(graphs.erdos_renyi, 9, edge_probability=1.0).number_of_edges() == 36
    thin = drawn(graphs.erdos_renyi, 9, edge_probability=0.0, connected=False)
    assert thin.number_of_edges() == 0
    draws = [drawn(graphs.erdos_renyi, 30, s, edge_probability=0.3) for s in range(50)]
    edges = [graph.number_of_edges() for graph in draws]
    # 435 pairs: 130.5 expected, standard error of the mean of 50 draws 1.35.
    assert abs(np.mean(edges) - 130.5) < 4 * 1.35


@pytest.mark.parametrize("num_peers", [1, 2, 7, 10])
def test_matchings_pair_everybody_but_one_of_an_odd_number(num_peers: int) -> None:
    degrees = sorted(dict(drawn(sequences.random_matchings, num_peers).degree).values())
    assert degrees == [0] * (num_peers % 2) + [1] * (num_peers // 2 * 2)


def test_every_matching_of_four_is_equally_likely() -> None:
    seen = [
        frozenset(map(frozenset, drawn(sequences.random_matchings, 4, s).edges)) for s in range(600)
    ]
    counts = [seen.count(matching) for matching in set(seen)]
    assert len(counts) == 3
    assert all(abs(count - 200) < 4 * math.sqrt(600 * 2 / 9) for count in counts)


def test_epidemic_receivers_are_distinct_others_and_alike_likely() -> None:
    graph = drawn(sequences.epidemic, 9, receivers=3)
    assert [d for _, d in graph.out_degree] == [3] * 9
    assert nx.number_of_selfloops(graph) == 0
    assert drawn(sequences.epidemic, 3, receivers=8).number_of_edges() == 6
    heard = sum(
        np.array([d for _, d in drawn(sequences.epidemic, 5, s, receivers=1).in_degree])
        for s in range(500)
    )
    assert (np.abs(heard - 500) < 4 * math.sqrt(2000 * 3 / 16)).all()
