"""Letters, their weights, what is late or lost, and who could have influenced whom."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from scipy.sparse import csr_array
from torch import nn

from clients.messages.accumulator import Reducer
from clients.messages.arrays import write_arrays
from clients.messages.payload_routing import Letter
from clients.models.factory import buffer_names
from sim.topology.availability import Availability
from sim.topology.graphs import complete, line, ring
from sim.topology.mixing import metropolis_hastings, push_sum, uniform
from sim.topology.sequences import random_matchings
from sim.topology.topology import Topology
from strategies.decentralised.delivery import Neighbours
from strategies.decentralised.driver_routing import HeldPayloads
from strategies.decentralised.mixed_parameters import (
    Spread,
    mean_and_distance,
    mixed_parameters,
)
from tests.scripted import Scripted

THIRD = 1 / 3


def on_a_line(missing: Any = "renormalise", n: int = 3, **script: Any) -> Neighbours:
    matrix = Topology(line, metropolis_hastings, num_peers=n, seed=0).mixing
    return Neighbours(matrix, Scripted(n, **script), n, missing)


def weights(letters: list[Letter]) -> dict[int, float]:
    return {letter.sender: letter.weight for letter in letters}


def test_everybody_gets_the_weights_of_the_graph() -> None:
    delivery = on_a_line().deliver(1, "x", [0, 1, 2])
    assert weights(delivery.letters[0]) == pytest.approx({0: 2 / 3, 1: THIRD})
    assert weights(delivery.letters[1]) == pytest.approx({0: THIRD, 1: THIRD, 2: THIRD})
    assert [letter.sender for letter in delivery.letters[1]] == [0, 1, 2]
    assert {letter.name for own in delivery.letters.values() for letter in own} == {"x@1"}
    assert [ends.tolist() for ends in delivery.edges()] == [[1, 0, 2, 1], [0, 1, 1, 2]]
    without = on_a_line().deliver(1, "x", [0, 1, 2], with_own=False)
    assert weights(without.letters[0]) == pytest.approx({1: THIRD})


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("renormalise", {0: 1 / 2, 1: 1 / 2}),
        ("own", {0: THIRD, 1: 2 / 3}),
        ("drop", {0: THIRD, 1: THIRD}),
    ],
)
def test_the_weight_of_a_missing_neighbour(missing: Any, expected: dict[int, float]) -> None:
    lost = on_a_line(missing, delays={1: {(2, 1): -1}}).deliver(1, "x", [0, 1, 2])
    assert weights(lost.letters[1]) == pytest.approx(expected)
    assert lost.lost == 1
    silent = on_a_line(missing).deliver(1, "x", [0, 1])  # peer 2 has nothing to send
    assert weights(silent.letters[1]) == pytest.approx(expected)
    assert silent.lost == 0


def test_no_weight_is_negative_where_the_graph_changes_and_letters_are_late() -> None:
    graph = Topology(random_matchings, metropolis_hastings, num_peers=20, seed=0, redraw=True)
    there = Availability(num_peers=20, seed=0, late_probability=0.5, drop_probability=0.2)
    for missing in ("own", "renormalise"):
        peers = Neighbours(graph.mixing, there, 20, missing)
        for server_round in range(1, 40):
            for own in peers.deliver(server_round, "x", range(20)).letters.values():
                assert min(letter.weight for letter in own) > 0
                assert sum(letter.weight for letter in own) == pytest.approx(1.0)


def test_what_is_pushed_and_does_not_arrive_stays_with_its_sender() -> None:
    script = {"delays": {1: {(0, 1): -1, (2, 1): 1}}, "asleep": {2: [1]}}
    peers = on_a_line("sender", **script)
    first = peers.deliver(1, "x", [0, 1, 2])
    assert weights(first.letters[0]) == pytest.approx({0: 1.0, 1: THIRD})
    assert weights(first.letters[1]) == pytest.approx({1: THIRD})
    assert weights(first.letters[2]) == pytest.approx({1: THIRD, 2: 2 / 3})
    second = peers.deliver(2, "x", [0, 2])  # 1 is asleep: its letter waits for it
    assert weights(second.letters[2]) == pytest.approx({2: 1.0})
    third = peers.deliver(3, "x", [0, 1, 2])
    assert [(each.sender, each.name) for each in third.letters[1]] == [
        (0, "x@3"), (1, "x@3"), (2, "x@1"), (2, "x@3"),
    ]  # fmt: skip


def test_who_sleeps_neither_sends_nor_receives() -> None:
    delivery = on_a_line(asleep={1: [1]}).deliver(1, "x", [0, 2])
    assert sorted(delivery.letters) == [0, 2]
    assert weights(delivery.letters[0]) == {0: 1.0}


def test_a_late_letter_comes_when_it_is_due_unless_a_newer_one_does() -> None:
    late = {1: {(0, 1): 1, (2, 1): 2}, 2: {(2, 1): -1}, 3: {(2, 1): -1}}
    peers = on_a_line(delays=late)
    first = peers.deliver(1, "x", [0, 1, 2])
    assert [letter.sender for letter in first.letters[1]] == [1]
    assert first.late == 0
    second = peers.deliver(2, "x", [0, 1, 2])
    assert {letter.name for letter in second.letters[1]} == {"x@2"}  # newer than 0's of round 1
    assert second.late == 0
    assert peers.waiting() == {"x@1"}
    third = peers.deliver(3, "x", [0, 1, 2])
    assert [(each.sender, each.name) for each in third.letters[1]] == [
        (0, "x@3"), (1, "x@3"), (2, "x@1"),
    ]  # fmt: skip
    assert (third.late, third.lost) == (1, 1)
    assert peers.waiting() == set()


def test_what_is_late_is_not_mixed_into_another_kind() -> None:
    peers = on_a_line(delays={1: {(0, 1): 1}, 2: {(0, 1): -1}})
    peers.deliver(1, "sums", [0, 1, 2])
    answers = peers.deliver(2, "answers", [0, 1, 2])
    assert [each.sender for each in answers.letters[1]] == [1, 2]
    sums = peers.deliver(2, "sums", [0, 1, 2])
    assert (sums.letters[1][0].sender, sums.letters[1][0].name) == (0, "sums@1")


def test_whom_nothing_reaches_has_what_it_made() -> None:
    swap = csr_array(np.array([[0.0, 1.0], [1.0, 0.0]]))
    peers = Neighbours(lambda r: swap, Scripted(2, delays={1: {(1, 0): -1}}), 2, "renormalise")
    delivery = peers.deliver(1, "x", [0, 1])
    assert weights(delivery.letters[0]) == {0: 1.0}
    assert weights(delivery.letters[1]) == {0: 1.0}
    assert 0 not in peers.deliver(1, "x", [0, 1], with_own=False).letters


@pytest.mark.parametrize("n", range(2, 18))
def test_a_ring_informs_everybody_after_half_of_it(n: int) -> None:
    matrix = Topology(ring, uniform, num_peers=n, seed=0).mixing
    peers = Neighbours(matrix, Availability(num_peers=n, seed=0), n, "own")
    shares = []
    for server_round in range(1, n // 2 + 1):
        peers.deliver(server_round, "x", range(n))
        shares.append(peers.informed_share())
    assert shares[-1] == 1.0
    assert all(share < 1.0 for share in shares[:-1])
    assert peers.informed().all()


def test_a_late_letter_brings_the_influence_of_the_round_it_was_sent_in() -> None:
    # On a line 0-1-2-3: what 1 sent to 2 in round 1 knows of 1 alone, not of 0.
    peers = on_a_line(n=4, delays={1: {(1, 2): 1}, 2: {(1, 2): -1}})
    peers.deliver(1, "x", range(4))
    peers.deliver(2, "x", range(4))
    assert peers.informed()[2].tolist() == [False, True, True, True]


def test_components_never_hear_of_each_other() -> None:
    matrix = csr_array(np.kron(np.eye(2), np.full((2, 2), 0.5)))
    peers = Neighbours(lambda r: matrix, Availability(num_peers=4, seed=0), 4, "own")
    for server_round in range(1, 5):
        peers.deliver(server_round, "x", range(4))
    assert peers.informed().astype(int).tolist() == np.kron(np.eye(2), np.ones((2, 2))).tolist()


def test_what_is_on_its_way_is_restored_with_its_payload() -> None:
    peers = on_a_line(delays={1: {(0, 1): 2}})
    peers.deliver(1, "x", [0, 1, 2])
    payloads = HeldPayloads()
    content = RecordDict({"arrays": write_arrays({"w": np.ones(2)}), "c": ConfigRecord({"a": 1})})
    payloads.keep("x@1", 0, content, 3)
    again = on_a_line(delays={3: {(0, 1): -1}})
    state = peers.state(payloads)
    held = again.restore(state)
    assert held == {("x@1", 0): (content, 3)}
    del state.array_records["late"]["bytes"]  # as older versions wrote it
    assert on_a_line().restore(state) == {("x@1", 0): (content, None)}
    assert (again.informed() == peers.informed()).all()
    third = again.deliver(3, "x", [0, 1, 2])
    assert (third.letters[1][0].sender, third.letters[1][0].name) == (0, "x@1")


def test_a_wrong_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="missing=guess: expected renormalise, own"):
        on_a_line("guess")


def sent(values: Any, weight: float = 1.0) -> RecordDict:
    from flwr.app import MetricRecord

    arrays = {"w": np.asarray(values, dtype=np.float32), "n": np.array(3)}
    return RecordDict(
        {"arrays": write_arrays(arrays), "metrics": MetricRecord({"push-weight": weight})}
    )


def numbers(record: RecordDict) -> Any:
    return record["mixed"]["w"].numpy()


def test_push_sum_finds_the_mean_on_a_directed_graph_and_plain_mixing_does_not() -> None:
    import networkx as nx

    graph = nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 2), (2, 3), (3, 0)])
    matrix = push_sum(graph)
    np.testing.assert_allclose(matrix.sum(axis=0), 1.0)
    begun = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    peers = Neighbours(lambda r: matrix, Availability(num_peers=4, seed=0), 4, "sender")
    x = list(begun)
    a = [1.0] * 4
    for server_round in range(1, 61):
        letters = peers.deliver(server_round, "x", range(4)).letters
        payloads = [sent(*pair) for pair in zip(x, a, strict=True)]
        mixed = [
            mixed_parameters(i, [(each, payloads[each.sender]) for each in letters[i]], push=True)
            for i in range(4)
        ]
        x = [numbers(record) for record in mixed]
        a = [float(record["push"]["push-weight"]) for record in mixed]
        assert sum(a) == pytest.approx(4.0)
    for own, weight in zip(x, a, strict=True):
        np.testing.assert_allclose(own / weight, begun.mean(0), atol=1e-5)
    assert max(abs(weight - 1.0) for weight in a) > 0.1  # it was needed


@pytest.mark.parametrize("rule", [ring, complete, line])
def test_averages_shrink_at_the_rate_of_the_spectral_gap(rule: Any) -> None:
    n = 8
    topology = Topology(rule, metropolis_hastings, num_peers=n, seed=0)
    matrix = topology.mixing(1).toarray()
    rate = 1 - topology.report()["spectral_gap"]
    values = np.random.default_rng(1).normal(size=(n, 3))
    first = np.linalg.norm(values - values.mean(0))
    for step in range(1, 30):
        values = matrix @ values
        assert np.linalg.norm(values - values.mean(0)) <= first * rate**step * (1 + 1e-9) + 1e-12


def test_counts_are_mixed_to_whole_numbers() -> None:
    letters = [(Letter(0, "x", 0.5), sent([1.0, 3.0])), (Letter(1, "x", 0.5), sent([3.0, 5.0]))]
    mixed = mixed_parameters(0, letters)
    np.testing.assert_array_equal(numbers(mixed), [2.0, 4.0])
    count = mixed["mixed"]["n"].numpy()
    assert (count, count.dtype) == (3, np.int64)


def test_consensus_distance_by_hand() -> None:
    """The vector of the drift measures: (1,0,0), (0,2,0), (1,1,1)."""
    contents = [sent(row) for row in ([1, 0, 0], [0, 2, 0], [1, 1, 1])]
    spread = Reducer(Spread)
    parts = [spread.fold(contents[:2]), spread.fold(contents[2:])]
    like = {"w": np.zeros(3, dtype=np.float32), "n": np.array(0)}
    mean, distance = mean_and_distance(spread.merge(parts), like)
    np.testing.assert_allclose(mean["w"], [2 / 3, 1, 1 / 3], rtol=1e-6)
    assert distance == pytest.approx(1.111111, abs=1e-6)
    assert mean_and_distance(spread.fold([sent([3, 4, 5])] * 7), like)[1] == 0.0


def test_consensus_is_of_parameters_and_not_of_running_statistics() -> None:
    def peer(weight: float, mean: float) -> RecordDict:
        arrays = {"w": np.full(3, weight, np.float32), "m": np.full(2, mean, np.float32)}
        return RecordDict({"arrays": write_arrays(arrays)})

    like = {"w": np.zeros(3, np.float32), "m": np.zeros(2, np.float32)}
    for weights, expected in (((1.0, 1.0), 0.0), ((1.0, 3.0), 3.0)):  # 3 (1 + 1) / 2
        contents = [peer(weight, mean) for weight, mean in zip(weights, (0.0, 2.0), strict=True)]
        spread = Reducer(partial(Spread, buffers={"m"}))
        part = spread.merge(spread.fold([each]) for each in contents)
        mean, distance = mean_and_distance(part, like, {"m"})
        assert distance == pytest.approx(expected, abs=1e-12)
        assert mean["m"].tolist() == [1.0, 1.0]  # averaged all the same


def test_buffers_are_told_from_parameters() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    assert buffer_names(network) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
