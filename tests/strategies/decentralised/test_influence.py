"""What a round without a server reports: bytes, edges, influence."""

from clients.messages.round_views import GraphView
from sim.analysis.probes.neighbours import neighbour_drift
from sim.topology import graphs
from tests.federations import inline, tiny_clients
from tests.peers import N, gossip, played, there, topology


def test_a_round_in_which_nothing_arrives_has_no_neighbours_to_compare() -> None:
    views: list[GraphView] = []
    clients = tiny_clients()
    strategy = gossip(
        clients, topology(graphs.ring), availability=there(drop_probability=1.0), watch=views.append
    )
    run = played(inline(None), clients, strategy, 1)
    assert run.reports[0].train["messages"] == 0.0
    assert run.reports[0].train["lost-messages"] == 10.0
    assert neighbour_drift(views[0]) == {}


def test_a_round_reports_bytes_edges_and_influence() -> None:
    clients = tiny_clients()
    views: list[GraphView] = []
    strategy = gossip(clients, topology(graphs.ring), watch=views.append)
    run = played(inline(None), clients, strategy, 2)
    train_metrics = run.reports[0].train
    assert train_metrics["messages"] == 10.0
    # Logits of all distilled examples, four classes, float32, beside records and array headers.
    least = len(strategy.split.distilled_ids) * 4 * 4
    assert least < train_metrics["bytes-per-edge"] < least + 1000
    assert train_metrics["edge-bytes"] == 10 * train_metrics["bytes-per-edge"]
    assert [r.train["informed-share"] for r in run.reports] == [3 / 5, 1.0]
    pairs = sorted(zip(views[0].senders.tolist(), views[0].receivers.tolist(), strict=True))
    assert pairs == sorted((j, i) for i in range(N) for j in ((i + 1) % N, (i - 1) % N))
    assert views[0].teachers is not None
    assert views[0].teachers.client_ids == tuple(range(N))
    asked = [e for e in run.reports[0].exchanges if e.phase == "train.targets"]
    assert all(e.request_bytes > 2 * train_metrics["bytes-per-edge"] for e in asked)
