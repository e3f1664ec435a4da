"""Topologies: every shipped one, and what is refused."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
import pytest
from scipy import sparse

from conf.schema import ConfigError, check_targets
from sim.topology import graphs, mixing, sequences
from sim.topology.mixing import is_doubly_stochastic, metropolis_hastings
from sim.topology.topology import WINDOW, Topology
from tests.composing import composed
from tests.places import ROOT
from tests.shipped_topologies import SHIPPED, shipped


def drawn(rule: Callable[..., nx.Graph], num_peers: int, seed: int = 0, **numbers: Any) -> nx.Graph:
    return rule(num_peers, np.random.default_rng(seed), **numbers)


# --- every shipped topology ---


@pytest.mark.parametrize("num_peers", range(2, 10))
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_topology_runs(name: str, num_peers: int, tmp_path: Path) -> None:
    path = tmp_path / "edges.txt"
    path.write_text("\n".join(f"{i} {i + 1}" for i in range(num_peers - 1)))
    extra = [f"topology.graph.path={path}"] if name == "from_file" else []
    topology = shipped(name, num_peers, *extra)
    union = nx.empty_graph(num_peers, create_using=nx.DiGraph)
    for r in range(1, WINDOW + 1):
        graph, matrix = topology.graph(r), topology.mixing(r)
        assert list(graph) == list(range(num_peers))
        assert nx.number_of_selfloops(graph) == 0
        assert graph.is_directed() == topology.directed
        assert matrix.format == "csr"
        assert matrix.dtype == np.float64
        assert matrix.has_sorted_indices
        np.testing.assert_allclose(matrix.sum(axis=0), 1, atol=1e-14)
        assert is_doubly_stochastic(matrix) or name == "epidemic"
        union.add_edges_from(graph.to_directed().edges)
    assert nx.is_strongly_connected(union)
    report = topology.report()
    assert report["components"] == 1
    assert report["spectral_gap"] > 0
    assert report["changes"] or report["diameter"] == nx.diameter(topology.graph(1))


def test_how_many_topologies_there_are() -> None:
    assert len(SHIPPED) == 15


@pytest.mark.parametrize("name", sorted(set(SHIPPED) - {"from_file", "clusters"}))
def test_one_peer_alone_keeps_what_it_has(name: str) -> None:
    assert np.array_equal(shipped(name, 1).mixing(3).toarray(), [[1.0]])


@pytest.mark.parametrize("name", sorted(set(SHIPPED) - {"from_file"}))
def test_rounds_follow_from_the_seed_in_any_order(name: str) -> None:
    there, back = shipped(name, 9, seed=4), shipped(name, 9, seed=4)
    forwards = {r: there.mixing(r).toarray() for r in (1, 2, 3, 7, 8)}
    for r in (8, 3, 7, 1, 2):
        assert np.array_equal(back.mixing(r).toarray(), forwards[r])


@pytest.mark.parametrize("name", ["k_regular", "small_world", "erdos_renyi"])
def test_random_graphs_stay_unless_they_are_drawn_anew(name: str) -> None:
    stays, changes = shipped(name, 12), shipped(name, 12, "topology.redraw=true")
    assert stays.graph(1) is stays.graph(9)
    assert stays.mixing(1) is stays.mixing(9)
    assert not nx.utils.graphs_equal(changes.graph(1), changes.graph(2))
    assert not nx.utils.graphs_equal(stays.graph(1), shipped(name, 12, seed=1).graph(1))
    assert nx.utils.graphs_equal(stays.graph(1), shipped(name, 12).graph(5))


@pytest.mark.parametrize("rule", ["uniform", "push_sum"])
def test_another_mixing_can_be_chosen(rule: str) -> None:
    matrix = shipped("star", 5, f"topology/mixing={rule}").mixing(1)
    expected = getattr(mixing, rule)(graphs.star(5))
    assert np.array_equal(matrix.toarray(), expected.toarray())


def test_proxyfl_is_a_permutation_each_round() -> None:
    topology = shipped("one_peer_exponential", 6, "topology/mixing=replace")
    for r in range(1, 5):
        matrix = topology.mixing(r).toarray()
        assert np.array_equal(matrix @ matrix.T, np.eye(6))
        assert matrix[(0 + 2 ** ((r - 1) % 3)) % 6, 0] == 1


def test_a_star_run_imports_no_graph_library() -> None:
    code = (
        "import sys, os, run\n"
        "from hydra import compose, initialize_config_dir\n"
        "from hydra.utils import instantiate\n"
        "from conf.schema import check_targets\n"
        "with initialize_config_dir(os.path.abspath('conf'), version_base='1.3'):\n"
        "    config = compose('config')\n"
        "check_targets(config)\n"
        "assert config.topology is None\n"
        "instantiate(config.availability)(num_peers=10, seed=0).present(3)\n"
        "print('networkx' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert out.stdout.split() == ["False"], out.stderr


def test_a_wrong_target_in_a_list_of_rules_is_named() -> None:
    config = composed("topology=sequence")
    config.topology.graph.rules[1]["_target_"] = "sim.topology.graphs.rimg"
    with pytest.raises(
        ConfigError, match=r"topology\.graph\.rules\.1\._target_.*did you mean 'ring'"
    ):
        check_targets(config, "topology")


# --- errors ---


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: graphs.torus(10, rows=3), "rows=3: expected a divisor of num_peers=10, or null"),
        (lambda: graphs.torus(10, rows=0), "rows=0: expected a divisor"),
        (lambda: graphs.clusters(3, num_clusters=4), r"num_clusters=4: expected 1\.\.num_peers=3"),
        (
            lambda: drawn(graphs.k_regular, 9, degree=3),
            "degree=3: .*even degree.* 2 or 4 for num_peers=9",
        ),
        (lambda: drawn(graphs.k_regular, 9, degree=0), "degree=0: expected an integer >= 1"),
        (
            lambda: drawn(graphs.k_regular, 10, degree=1),
            "none of 100 draws .* degree=1, num_peers=10",
        ),
        (lambda: drawn(graphs.small_world, 9, degree=3), "degree=3: expected an even number"),
        (
            lambda: drawn(graphs.small_world, 9, rewiring_probability=1.5),
            "rewiring_probability=1.5: ",
        ),
        (
            lambda: drawn(graphs.erdos_renyi, 9, edge_probability=-1),
            "edge_probability=-1: expected a prob",
        ),
        (
            lambda: drawn(graphs.erdos_renyi, 9, edge_probability=0.01),
            "none of 100 draws was connected with edge_probability=0.01, num_peers=9: raise",
        ),
        (
            lambda: drawn(sequences.epidemic, 9, receivers=0),
            "receivers=0: expected an integer >= 1",
        ),
        (
            lambda: metropolis_hastings(nx.DiGraph([(0, 1)])),
            "metropolis_hastings needs an undirected graph: take topology/mixing=push_sum",
        ),
        (
            lambda: mixing.uniform(nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 2)])),
            "peer 0 hears of 1 and sends to 2: take topology/mixing=push_sum",
        ),
        (lambda: mixing.replace(graphs.ring(4)), "peer 0 hears of 2 and sends to 2"),
        (lambda: mixing.replace(nx.DiGraph([(0, 1)])), "peer 0 hears of 0 and sends to 1"),
    ],
)
def test_what_cannot_be_is_refused_by_name(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


HALVES = nx.disjoint_union(nx.complete_graph(2), nx.path_graph(3))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            lambda: HALVES,
            r"not connected: 2 components of 3, 2 peers; topology.require_connected=fal",
        ),
        (
            lambda: nx.DiGraph([(0, 1), (1, 2), (2, 3), (3, 4)]),
            "not connected: 5 components of 1, 1, 1, 1, 1",
        ),
        (
            lambda server_round: HALVES,
            "not connected, not even over the first 32 rounds together: 2 components",
        ),
        (lambda: nx.path_graph(4), r"expected the nodes 0\.\.4, found 4: \[0, 1, 2, 3\]"),
        (lambda: nx.path_graph(range(1, 6)), r"the nodes 0\.\.4, found 5: \[1, 2, 3, 4, 5\]"),
        (
            lambda n: nx.path_graph(n),
            r"topology\.graph '<lambda>', round 1: TypeError: .*num_peers",
        ),
        (lambda num_peers: 1 // 0, r"round 1: ZeroDivisionError: "),
        (lambda: nx.MultiGraph(nx.path_graph(5)), "expected a networkx Graph or DiGraph, found"),
        (lambda: [(0, 1)], "expected a networkx Graph or DiGraph, found <class 'list'>"),
        (lambda: nx.Graph([(0, 0), *nx.path_graph(5).edges]), r"no self loops, found \[\(0, 0\)\]"),
    ],
)
def test_graphs_of_ones_own_are_checked(graph: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Topology(graph, mixing.push_sum, num_peers=5, seed=0)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(2), r"a matrix \(2, 2\), expected \(3, 3\)"),
        (np.array([[2.0, -1, 0], [-1, 2, 0], [0, 0, 1]]), "negative or not finite"),
        (np.full((3, 3), np.nan), "negative or not finite"),
        (np.eye(3) * 0.9, "rows or columns, or both, that sum to one"),
        (np.full((3, 3), 1 / 3), "a weight without an edge: receiver 0, sender 2"),
    ],
)
def test_weights_of_ones_own_are_checked(matrix: npt.NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Topology(graphs.line, lambda graph: sparse.csr_array(matrix), num_peers=3, seed=0)


def test_impossible_requests_name_the_key() -> None:
    with pytest.raises(ValueError, match=r"topology\.redraw=true: 'ring' draws nothing"):
        Topology(graphs.ring, metropolis_hastings, num_peers=3, seed=0, redraw=True)
    with pytest.raises(ValueError, match="num_peers=0: expected an integer >= 1"):
        Topology(graphs.ring, metropolis_hastings, num_peers=0, seed=0)
    for ask in (Topology.graph, Topology.mixing):
        with pytest.raises(ValueError, match="server_round=0: expected an integer >= 1"):
            ask(Topology(graphs.ring, metropolis_hastings, num_peers=3, seed=0), 0)


def test_a_graph_in_parts_is_reported_where_that_is_allowed() -> None:
    topology = Topology(
        lambda: HALVES, metropolis_hastings, num_peers=5, seed=0, require_connected=False
    )
    assert topology.report() == {
        "graph": "<lambda>",
        "num_peers": 5,
        "changes": False,
        "directed": False,
        "edges": 3,
        "least_degree": 1,
        "mean_degree": 1.2,
        "largest_degree": 2,
        "components": 2,
        "doubly_stochastic": True,
        "spectral_gap": pytest.approx(0, abs=1e-12),
        "diameter": None,
    }
    power = np.linalg.matrix_power(topology.mixing(1).toarray(), 8)
    apart = power > 0
    expected = np.zeros((5, 5), dtype=bool)
    expected[:2, :2] = expected[2:, 2:] = True
    assert np.array_equal(apart, expected)
    values = np.linalg.matrix_power(topology.mixing(1).toarray(), 300) @ [0.0, 2, 10, 20, 60]
    np.testing.assert_allclose(values, [1, 1, 30, 30, 30], atol=1e-9)


# --- a file ---


def test_peers_are_put_into_their_order() -> None:
    shuffled = nx.Graph([(3, 1), (1, 0), (0, 2), (2, 3)])
    topology = Topology(lambda: shuffled, metropolis_hastings, num_peers=4, seed=0)
    assert list(topology.graph(1)) == [0, 1, 2, 3]
    assert topology.mixing(1).toarray()[3].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
