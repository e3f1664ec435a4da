"""Graphs that take turns."""

import math
from functools import partial, reduce

import networkx as nx
import numpy as np
import pytest

from sim.topology import graphs, sequences
from sim.topology.mixing import metropolis_hastings
from sim.topology.topology import Topology
from tests.shipped_topologies import shipped


def test_one_peer_exponential_and_proxyfl_are_one_rule() -> None:
    for num_peers in range(2, 70):
        assert graphs.num_offsets(num_peers) == math.ceil(math.log2(num_peers))
        assert graphs.num_offsets(num_peers) == math.floor(math.log2(num_peers - 1)) + 1
    steps = [set(sequences.one_peer_exponential(6, r).edges) for r in range(1, 8)]
    for r, step in enumerate([1, 2, 4, 1, 2, 4, 1]):
        assert steps[r] == {(i, (i + step) % 6) for i in range(6)}


@pytest.mark.parametrize("num_peers", [2, 4, 8, 16])
def test_one_peer_exponential_gives_the_exact_average_after_log2_n_rounds(num_peers: int) -> None:
    topology = shipped("one_peer_exponential", num_peers)
    rounds = int(math.log2(num_peers))
    product = reduce(lambda p, r: topology.mixing(r) @ p, range(1, rounds + 1), np.eye(num_peers))
    assert np.array_equal(product, np.full((num_peers, num_peers), 1 / num_peers))
    assert topology.report()["spectral_gap"] == 1


def test_a_sequence_takes_its_rules_in_turn_and_draws_anew() -> None:
    rules = [graphs.ring, partial(graphs.erdos_renyi, edge_probability=0.5), graphs.star]
    topology = Topology(
        partial(sequences.sequence, rules=rules), metropolis_hastings, num_peers=9, seed=0
    )
    assert nx.utils.graphs_equal(topology.graph(1), graphs.ring(9))
    assert nx.utils.graphs_equal(topology.graph(4), graphs.ring(9))
    assert nx.utils.graphs_equal(topology.graph(6), graphs.star(9))
    assert not nx.utils.graphs_equal(topology.graph(2), topology.graph(5))
    with pytest.raises(ValueError, match="rules=\\[\\]: expected at least one"):
        sequences.sequence(3, 1, np.random.default_rng(0), rules=[])
