"""Late letters: the newest counts, rows stay rows, and no pushed weight is made or lost."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from sim.topology.availability import Availability
from sim.topology.graphs import erdos_renyi, ring, small_world
from sim.topology.mixing import metropolis_hastings, push_sum, replace, uniform
from sim.topology.sequences import epidemic, one_peer_exponential, random_matchings, sequence
from sim.topology.topology import Topology
from strategies.decentralised.delivery import Neighbours
from tests.scripted import Scripted

FLAKY: dict[str, Any] = {
    "sleep_probability": 0.1,
    "drop_probability": 0.1,
    "late_probability": 0.1,
    "late_rounds": 2,
}
CHANGING = [partial(sequence, rules=[ring, random_matchings]), erdos_renyi, small_world]


@pytest.mark.parametrize("missing", ["own", "renormalise"])
@pytest.mark.parametrize("edge", [(1 / 3, 1 / 2), (1 / 2, 1 / 3)])
def test_a_late_letter_weighs_what_the_round_says_in_which_it_is_used(
    missing: Any, edge: tuple[float, float]
) -> None:
    rows = {r: csr_array(np.array([[1 - w, w], [w, 1 - w]])) for r, w in enumerate(edge, 1)}
    there = Scripted(2, {1: {(1, 0): 1}, 2: {(1, 0): -1}})
    peers = Neighbours(lambda r: rows[r], there, 2, missing)
    peers.deliver(1, "x", [0, 1])
    own, late = peers.deliver(2, "x", [0, 1]).letters[0]
    assert (own.name, late.name) == ("x@2", "x@1")
    assert (own.weight, late.weight) == pytest.approx((1 - edge[1], edge[1]))


@pytest.mark.parametrize("missing", ["own", "renormalise"])
@pytest.mark.parametrize("rule", CHANGING)
def test_rows_sum_to_one_on_graphs_that_change(rule: Any, missing: Any) -> None:
    redraw = rule in (erdos_renyi, small_world)
    graph = Topology(rule, metropolis_hastings, num_peers=8, seed=0, redraw=redraw)
    peers = Neighbours(graph.mixing, Availability(num_peers=8, seed=0, **FLAKY), 8, missing)
    for server_round in range(1, 60):
        for own in peers.deliver(server_round, "x", peers.awake(server_round)).letters.values():
            assert sum(letter.weight for letter in own) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("delays", "expected"),
    [
        ({1: {(1, 0): 2}, 2: {(1, 0): 1}, 3: {(1, 0): -1}}, ["x@3", "x@2", "x@3"]),
        ({1: {(1, 0): 2}, 3: {(1, 0): -1}}, ["x@3", "x@3"]),
    ],
    ids=["of two the newer counts", "one that was overtaken is not used"],
)
def test_of_late_letters_of_one_sender_only_the_newest_counts(delays: Any, expected: Any) -> None:
    matrix = Topology(ring, metropolis_hastings, num_peers=3, seed=0).mixing
    peers = Neighbours(matrix, Scripted(3, delays), 3, "own")
    for server_round in (1, 2, 3):
        last = peers.deliver(server_round, "x", [0, 1, 2])
    assert [letter.name for letter in last.letters[0]] == expected


@pytest.mark.parametrize(
    ("rule", "mixing"),
    [
        (epidemic, push_sum),
        (one_peer_exponential, push_sum),
        (one_peer_exponential, uniform),
        (one_peer_exponential, replace),
    ],
)
def test_pushed_weight_is_neither_made_nor_lost(rule: Any, mixing: Any) -> None:
    """Of peers and of letters on their way; without a diagonal too, as `replace` has it."""
    graph = Topology(rule, mixing, num_peers=8, seed=0, redraw=rule is epidemic)
    peers = Neighbours(graph.mixing, Availability(num_peers=8, seed=1, **FLAKY), 8, "sender")
    weight, kept = np.ones(8), dict[tuple[str, int], float]()
    for server_round in range(1, 60):
        have = peers.awake(server_round)
        kept |= {(f"x@{server_round}", j): weight[j] for j in have}
        for i, own in peers.deliver(server_round, "x", have).letters.items():
            weight[i] = sum(each.weight * kept[each.name, each.sender] for each in own)
        flying = sum(each.weight * kept[each.name, each.sender] for _, _, each in peers._late)
        assert weight.sum() + flying == pytest.approx(8.0, abs=1e-10)
        assert weight.min() > 0
