"""Spectral gaps and rates against formulas."""

import math
from functools import reduce

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sim.topology import graphs, mixing
from sim.topology.mixing import metropolis_hastings, spectral_gap
from sim.topology.spectrum import mixing_rate
from sim.topology.topology import WINDOW
from tests.shipped_topologies import shipped

# --- worked by hand ---


@pytest.mark.parametrize(
    ("graph", "gap"),
    [
        (graphs.ring(16), 2 / 3 - 2 / 3 * math.cos(2 * math.pi / 16)),  # .0507
        (graphs.torus(16), 0.4),
        (graphs.torus(16, rows=4), 0.4),
        (graphs.static_exponential(16, directed=True), 0.4),
        (graphs.static_exponential(16), 0.5),  # offsets 1, 2, 4, 8: weights 1/8, odd mode 1/2
        (graphs.star(16), 1 / 16),
        (graphs.complete(16), 1.0),
    ],
)
def test_spectral_gaps_of_sixteen_peers(graph: nx.Graph, gap: float) -> None:
    rule = mixing.uniform if graph.is_directed() else metropolis_hastings
    assert spectral_gap(rule(graph)) == pytest.approx(gap, abs=1e-12)


@pytest.mark.parametrize("num_peers", [501, 1000])  # 500 are still dense
def test_the_sparse_gap_agrees_with_the_formula(num_peers: int) -> None:
    expected = 2 / 3 - 2 / 3 * math.cos(2 * math.pi / num_peers)
    assert spectral_gap(metropolis_hastings(graphs.ring(num_peers))) == pytest.approx(
        expected, abs=1e-6, rel=1e-4
    )
    everybody = sparse.csr_array(np.full((num_peers, num_peers), 1 / num_peers))
    assert spectral_gap(everybody) == pytest.approx(1, abs=1e-6)


def test_a_matrix_that_keeps_two_halves_apart_has_no_gap() -> None:
    halves = nx.disjoint_union(nx.complete_graph(3), nx.complete_graph(4))
    assert spectral_gap(metropolis_hastings(halves)) == pytest.approx(0, abs=1e-12)


# --- properties of mixing ---


@settings(max_examples=25, deadline=None)
@given(num_peers=st.integers(3, 20), seed=st.integers(0, 2**32), rounds=st.integers(1, 12))
def test_differences_shrink_at_the_predicted_rate(num_peers: int, seed: int, rounds: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = metropolis_hastings(graphs.erdos_renyi(num_peers, rng))
    rate = 1 - spectral_gap(matrix)
    values, vectors = np.linalg.eigh(matrix.toarray() - 1 / num_peers)
    slowest = vectors[:, np.abs(values).argmax()]
    start = rng.standard_normal(num_peers)
    for vector, exact in ((start, False), (slowest, True)):
        mixed = vector.copy()
        for _ in range(rounds):
            mixed = matrix @ mixed
        left = np.linalg.norm(mixed - vector.mean())
        bound = rate**rounds * np.linalg.norm(vector - vector.mean())
        assert left <= bound + 1e-12
        assert not exact or left == pytest.approx(bound, abs=1e-12)
        assert mixed.mean() == pytest.approx(vector.mean(), abs=1e-12)


def test_the_rate_of_a_constant_sequence_is_its_gap() -> None:
    matrix = metropolis_hastings(graphs.ring(9))
    assert mixing_rate([matrix] * 20) == pytest.approx(spectral_gap(matrix), abs=1e-12)
    faster = metropolis_hastings(graphs.static_exponential(9))
    assert mixing_rate([faster] * 500) == pytest.approx(spectral_gap(faster), abs=1e-6)
    assert mixing_rate([mixing.uniform(graphs.complete(9)), matrix]) == 1


@pytest.mark.parametrize("num_peers", [512, 600])
def test_the_rate_of_many_peers_needs_no_dense_matrix(num_peers: int) -> None:
    topology = shipped("one_peer_exponential", num_peers)
    rate = mixing_rate(topology.mixing(r) for r in range(1, WINDOW + 1))
    if num_peers == 512:
        assert rate == 1
        return
    rounds = range(1, WINDOW + 1)
    product = reduce(lambda p, r: topology.mixing(r) @ p, rounds, np.eye(num_peers))
    dense = np.linalg.norm(product - 1 / num_peers, 2)
    assert rate == pytest.approx(1 - dense ** (1 / WINDOW), abs=1e-6)
