"""Distillation over graphs: the star's targets on a complete one."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from clients.app import SimulatedApp
from clients.messages.arrays import read_arrays
from clients.messages.requests import client_id_of
from clients.messages.round_views import RoundView
from clients.population.clients import SimulatedClients
from clients.training.loop import train
from sim.topology import graphs
from strategies.aggregation.combiners import mean_of_probs
from strategies.aggregation.scorers import max_prob, own_odds
from tests.federations import distillation, handlers_of, inline, run_ours, simulated, tiny_clients
from tests.peers import FEATURES, SGD, N, gossip, played, states, topology, unfolded


class Listening(SimulatedApp):
    """Notes the targets that each peer is given."""

    def __init__(self, clients: SimulatedClients, strategy: Any) -> None:
        super().__init__(clients, handlers_of(strategy))
        self.heard: dict[int, Any] = {}

    def serve(self, requests: Any, contexts: Any, device: str = "cpu") -> Any:
        for request in requests:
            if request.metadata.message_type == "train.targets":
                found = read_arrays(request.content.array_records["targets"])
                self.heard[client_id_of(request.metadata.dst_node_id)] = found
        yield from super().serve(requests, contexts, device)


RULES: list[Any] = [{}, {"scorer": own_odds, "discriminator": FEATURES}, {"weight_cap": 0.4}]


@pytest.mark.parametrize("rule", RULES)
def test_a_complete_graph_makes_the_stars_targets(rule: Any) -> None:
    """Bit for bit where the star's answers are not folded; folded, they are summed otherwise."""
    seen: list[RoundView] = []
    everything = {"probe_examples": 1000, "scorer": max_prob} | rule
    for combiner in (unfolded, mean_of_probs):
        clients = tiny_clients()
        star = distillation(clients, combiner=combiner, report=seen.append, **everything)
        run_ours(inline(simulated(clients)), clients, star)
    graph = gossip(tiny_clients(), topology(graphs.complete), **rule)
    clients = tiny_clients()
    app = Listening(clients, graph)
    run_ours(inline(app), clients, graph)
    assert sorted(app.heard) == list(range(N))
    exact, folded = seen[0].targets.numpy(), seen[1].targets.numpy()
    for found in app.heard.values():
        np.testing.assert_array_equal(found["proxy-ids"], seen[0].proxy_ids)
        np.testing.assert_array_equal(found["targets"], exact)
        np.testing.assert_allclose(found["targets"], folded, atol=1e-6)


def test_sweeps_on_a_complete_graph_change_nothing_and_on_a_ring_lead_to_the_stars_targets() -> (
    None
):
    def heard(rule: Any, sweeps: int) -> Any:
        clients = tiny_clients()
        strategy = gossip(clients, topology(rule), sweeps=sweeps)
        app = Listening(clients, strategy)
        run_ours(inline(app), clients, strategy)
        return [app.heard[k]["targets"] for k in range(N)]

    star = heard(graphs.complete, 1)[0]
    for found in heard(graphs.complete, 3):
        np.testing.assert_allclose(found, star, atol=1e-5)
    apart = [
        max(np.abs(found - star).max() for found in heard(graphs.ring, sweeps))
        for sweeps in (1, 4, 40)
    ]
    assert apart[0] > apart[1] > 1e-3 > apart[2]
    assert apart[2] < 1e-5


def test_a_graph_of_two_parts_is_two_federations() -> None:
    parts = csr_array(np.kron(np.eye(2), np.full((2, 2), 0.5)))

    def end(other: int) -> dict[int, Any]:
        cut = np.array_split(np.arange(120), 4)
        cut[3] = cut[3][: len(cut[3]) - other]  # peer 3 has fewer examples
        clients = tiny_clients(4, cut)
        strategy = gossip(clients, topology(graphs.ring, n=4), mixing=lambda r: parts)
        return states(played(inline(None), clients, strategy, 2), 4)

    one, other = end(0), end(5)
    assert [one[k] == other[k] for k in range(4)] == [True, True, False, False]


def test_without_their_own_answers_peers_imitate_the_others_only() -> None:
    clients = tiny_clients(2)
    strategy = gossip(clients, topology(graphs.complete, n=2), with_own=False)
    app, seen = Listening(clients, strategy), list[RoundView]()
    strategy.report = seen.append
    run_ours(inline(app), clients, strategy)
    answers = seen[0].teachers.logits.softmax(-1).numpy()
    for peer in (0, 1):
        rows = np.isin(app.heard[peer]["proxy-ids"], seen[0].proxy_ids)
        np.testing.assert_allclose(
            app.heard[peer]["targets"][rows], answers[1 - peer], rtol=1e-6, atol=1e-7
        )


def test_peers_learn_classes_that_they_never_saw() -> None:
    clients = tiny_clients(4)
    labels = clients.splits.private.labels
    clients.partitions = [np.flatnonzero(labels == c) for c in range(4)]

    def least(epochs: int) -> float:
        lesson = partial(train, epochs=epochs, batch_size=8, optimizer=SGD)
        odds: dict[str, Any] = {"scorer": own_odds, "discriminator": FEATURES, "distil": lesson}
        strategy = gossip(clients, topology(graphs.complete, n=4), **odds)
        exchanges = played(inline(None), clients, strategy, 2).reports[-1].exchanges
        return min(e.metrics["accuracy"] for e in exchanges if "accuracy" in e.metrics)

    assert least(0) <= 0.34  # alone each knows one class of four
    assert least(20) > 0.6
