"""Graphs and mixing matrices: worked vectors, and what holds for every topology."""

import math
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial, reduce
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig
from scipy import sparse

from conf.schema import ConfigError, check_targets, register
from sim.topology import graphs, mixing, sequences
from sim.topology.edge_file import from_file
from sim.topology.mixing import is_doubly_stochastic, metropolis_hastings, spectral_gap
from sim.topology.spectrum import mixing_rate
from sim.topology.topology import WINDOW, Topology
from tests.places import ROOT

SHIPPED = sorted(
    path.stem for path in (ROOT / "conf" / "topology").glob("*.yaml") if path.stem != "none"
)
EDGES = "0 1  # a path\n1,2\n\n2\t3\n"


def composed(*overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", overrides=list(overrides))


@cache
def chosen(name: str, *overrides: str) -> Callable[..., Topology]:
    """What the run will get: composing takes 0.1 s, so each choice is made once."""
    config = composed(f"topology={name}", *overrides)
    check_targets(config, "topology")
    bound: Callable[..., Topology] = instantiate(config.topology)
    return bound


def shipped(name: str, num_peers: int, *overrides: str, seed: int = 0) -> Topology:
    return chosen(name, *overrides)(num_peers=num_peers, seed=seed)


def drawn(rule: Callable[..., nx.Graph], num_peers: int, seed: int = 0, **numbers: Any) -> nx.Graph:
    return rule(num_peers, np.random.default_rng(seed), **numbers)


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


def test_row_normalised_weights_are_not_doubly_stochastic() -> None:
    path = mixing.adjacency(nx.path_graph(3)).toarray() + np.eye(3)
    rows = sparse.csr_array(path / path.sum(axis=1, keepdims=True))
    assert not is_doubly_stochastic(rows)
    assert not is_doubly_stochastic(rows.T.tocsr())
    assert not is_doubly_stochastic(sparse.csr_array(np.array([[1.5, -0.5], [-0.5, 1.5]])))


# --- graphs ---


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


def test_edges_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "edges.csv"
    path.write_text(EDGES)
    assert set(from_file(4, path=str(path)).edges) == {(0, 1), (1, 2), (2, 3)}
    one_way = from_file(6, path=str(path), directed=True)
    assert set(one_way.edges) == {(0, 1), (1, 2), (2, 3)}
    assert one_way.is_directed()
    assert list(one_way) == list(range(6))
    with pytest.raises(
        ValueError, match="'from_file' is not connected: 2 components of 4, 1 peers"
    ):
        shipped("from_file", 5, f"topology.graph.path={path}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 1 0.5", "'0 1 0.5': expected two peers, 'i j' or 'i,j'"),
        ("3", "'3': expected two peers"),
        ("a b", "'a b': expected two peers"),
        ("-1 2", "'-1 2': expected two peers"),
        ("2,4", r"peer 4: expected 0\.\.3, as num_peers=4"),
        ("2 2", "an edge from peer 2 to itself"),
    ],
)
def test_a_bad_line_is_named_with_its_file(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "edges.csv"
    path.write_text(f"{EDGES}{line}\n")
    with pytest.raises(ValueError, match=f"edges.csv:5: {message}"):
        from_file(4, path=str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.csv not found: .*one edge 'i j' a line"):
        from_file(4, path=str(tmp_path / "none.csv"))


def test_peers_are_put_into_their_order() -> None:
    shuffled = nx.Graph([(3, 1), (1, 0), (0, 2), (2, 3)])
    topology = Topology(lambda: shuffled, metropolis_hastings, num_peers=4, seed=0)
    assert list(topology.graph(1)) == [0, 1, 2, 3]
    assert topology.mixing(1).toarray()[3].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
