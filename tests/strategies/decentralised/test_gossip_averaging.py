"""Federations without a server: the star's targets, equal bits on any pool, faults, resume."""

import os
import signal
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from scipy.sparse import csr_array

from clients.app import SimulatedApp
from clients.handlers.screening import fault_of
from clients.handlers.state import MESSENGER, MODEL
from clients.messages.answers import GraphView, RoundView, TeacherPredictions
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import TRAIN_TARGETS, client_id_of
from clients.models import logistic_regression, mlp, resnet8
from clients.models.discriminator import DiscriminatorRecipe
from clients.models.factory import build, parameters_of
from clients.mutual import rules
from clients.mutual.messenger import Messenger, Pair, learn_together
from clients.population.clients import SimulatedClients
from clients.seeding import Purpose, generator
from clients.training.loop import train
from clients.training.losses import kl
from sim.analysis.probes.neighbours import neighbour_drift
from sim.engine.grid import PoolGrid
from sim.engine.rounds import QuorumLost
from sim.topology import graphs, sequences
from sim.topology.availability import Availability
from sim.topology.mixing import metropolis_hastings, push_sum, replace, uniform
from sim.topology.topology import Topology
from strategies.aggregation.combiners import mean_of_probs
from strategies.aggregation.scorers import max_prob, own_odds
from strategies.aggregation.scorers import uniform as uniform_trust
from strategies.decentralised.def_kt import MutualTransfer
from strategies.decentralised.gossip_averaging import ParameterGossip
from strategies.decentralised.gossip_distillation import Gossip
from strategies.server.distillation import DistillationStrategy
from strategies.server.sequence import Stages
from tests.federations import (
    SEED,
    Run,
    distillation,
    inline,
    open_pool,
    run_ours,
    student_of,
    tiny_clients,
    trainer,
)

N = 5
SGD = partial(torch.optim.SGD, lr=0.1)
FLAKY: dict[str, Any] = {
    "sleep_probability": 0.2,
    "drop_probability": 0.2,
    "late_probability": 0.3,
    "late_rounds": 2,
    "leave_probability": 0.1,
    "join_probability": 0.5,
    "present_share": 0.9,
}
FEATURES = DiscriminatorRecipe("features", balanced=False, l2=0.01)


def topology(rule: Any, mixing: Any = uniform, n: int = N, **options: Any) -> Topology:
    return Topology(rule, mixing, num_peers=n, seed=SEED, **options)


def there(n: int = N, **faults: Any) -> Availability:
    return Availability(num_peers=n, seed=SEED, **faults)


def gossip(clients: SimulatedClients, graph: Topology, **changes: Any) -> Gossip:
    number = len(clients.architectures)
    parts: dict[str, Any] = {
        "num_clients": number,
        "mixing": graph.mixing,
        "availability": there(number),
        "proxy": clients.splits.proxy,
        "test": clients.splits.test,
        "seed": SEED,
        "scorer": max_prob,
        "combiner": mean_of_probs,
        "loss": kl,
        "distil": trainer(),
    }
    return Gossip(**(parts | changes))


def averaging(clients: SimulatedClients, graph: Topology, **changes: Any) -> ParameterGossip:
    number = len(clients.architectures)
    parts: dict[str, Any] = {
        "num_clients": number,
        "mixing": graph.mixing,
        "availability": there(number),
        "student_model": clients.student,
        "models": clients.models,
        "messenger": clients.messenger,
        "test": clients.splits.test,
    }
    return ParameterGossip(**(parts | changes))


def alike(num_clients: int = N, **changes: Any) -> SimulatedClients:
    """Clients of one architecture."""
    settings: dict[str, Any] = {
        "architectures": ["linear"] * num_clients,
        "models": {"linear": logistic_regression},
    }
    return tiny_clients(num_clients, **(settings | changes))


def played(pool: Any, clients: SimulatedClients, strategy: Any, rounds: int, **options: Any) -> Run:
    clients.peer_lesson = getattr(strategy, "peer_lesson", None)
    pool.load(SimulatedApp(clients))
    return run_ours(pool, clients, strategy, rounds, **options)


def states(run: Run, n: int = N) -> dict[int, Any]:
    """Every peer's whole state, as bytes."""
    return {k: run.grid.states._pool.frozen(run.grid.states.handle(k)) for k in range(n)}


def arrays_in(run: Run, peer: int, name: str = MODEL) -> Any:
    return read_arrays(run.grid.states.of(peer).array_records[name])


# --- distillation over graphs ---


class Listening(SimulatedApp):
    """Notes the targets that each peer is given."""

    def __init__(self, clients: SimulatedClients) -> None:
        super().__init__(clients)
        self.heard: dict[int, Any] = {}

    def serve(self, requests: Any, contexts: Any, device: str = "cpu") -> Any:
        for request in requests:
            if request.metadata.message_type == TRAIN_TARGETS:
                found = read_arrays(request.content.array_records["targets"])
                self.heard[client_id_of(request.metadata.dst_node_id)] = found
        yield from super().serve(requests, contexts, device)


def unfolded(logits: Any, weights: Any, temperature: float) -> Any:
    """Combine as `mean_of_probs` does, without saying that it is a mean."""
    return mean_of_probs(logits, weights, temperature)


RULES: list[Any] = [{}, {"scorer": own_odds, "discriminator": FEATURES}, {"weight_cap": 0.4}]


@pytest.mark.parametrize("rule", RULES)
def test_a_complete_graph_makes_the_stars_targets(rule: Any) -> None:
    """Bit for bit where the star's answers are not folded; folded, they are summed otherwise."""
    seen: list[RoundView] = []
    everything = {"probe_examples": 1000, "scorer": max_prob} | rule
    for combiner in (unfolded, mean_of_probs):
        clients = tiny_clients()
        star = distillation(clients, combiner=combiner, report=seen.append, **everything)
        run_ours(inline(SimulatedApp(clients)), clients, star)
    graph = gossip(tiny_clients(), topology(graphs.complete), **rule)
    clients = tiny_clients()
    clients.peer_lesson = graph.peer_lesson
    app = Listening(clients)
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
        clients.peer_lesson = strategy.peer_lesson
        app = Listening(clients)
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
    clients.peer_lesson = strategy.peer_lesson
    app, seen = Listening(clients), list[RoundView]()
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


# --- parameters over graphs ---


def hand_trained(parameters: Any, clients: SimulatedClients, peer: int, lr: float) -> Any:
    """One step of softmax regression on all of a peer's examples, in numpy."""
    private, indices = clients.splits.private, clients.partitions[peer]
    from clients.data import normalised

    images = normalised(private, indices).reshape(len(indices), -1).astype(np.float64)
    weight, bias = (parameters[name].astype(np.float64) for name in sorted(parameters)[::-1])
    logits = images @ weight.T + bias
    probs = np.exp(logits - logits.max(1, keepdims=True))
    probs /= probs.sum(1, keepdims=True)
    error = (probs - np.eye(private.num_classes)[private.labels[indices]]) / len(indices)
    return {
        sorted(parameters)[1]: weight - lr * error.T @ images,
        sorted(parameters)[0]: bias - lr * error.sum(0),
    }


@pytest.mark.parametrize("order", ["combine_then_adapt", "adapt_then_combine"])
def test_two_rounds_of_averaging_on_a_ring_by_hand(order: Any) -> None:
    one_step = partial(train, epochs=1, batch_size=1000, optimizer=SGD)
    clients = alike(4, train=one_step)
    graph = topology(graphs.ring, n=4)
    run = played(inline(None), clients, averaging(clients, graph, order=order), 2)
    x = [parameters_of(student_of(clients))] * 4
    third = [[i, (i + 1) % 4, (i - 1) % 4] for i in range(4)]
    for _ in range(2):
        y = [hand_trained(own, clients, k, 0.1) for k, own in enumerate(x)]
        mixed = y if order == "adapt_then_combine" else x
        means = [{name: sum(mixed[j][name] for j in near) / 3 for name in x[0]} for near in third]
        if order == "combine_then_adapt":
            means = [
                {name: means[i][name] + y[i][name] - x[i][name] for name in x[0]} for i in range(4)
            ]
        x = means
    for peer in range(4):
        for name, value in arrays_in(run, peer).items():
            np.testing.assert_allclose(value, x[peer][name], rtol=1e-4, atol=1e-6)
    mean = {name: np.mean([own[name] for own in x], axis=0) for name in x[0]}
    apart = np.mean([sum(((own[n] - mean[n]) ** 2).sum() for n in mean) for own in x])
    metrics = run.reports[-1].train
    assert metrics["consensus-distance"] == pytest.approx(apart, rel=1e-3)
    for name, value in run.parameters.items():  # what is called the student
        np.testing.assert_allclose(value, mean[name], rtol=1e-4, atol=1e-6)
    assert metrics["messages"] == 8.0


def test_two_rounds_of_push_sum_on_a_directed_graph_by_hand() -> None:
    clients = alike(3, train=partial(train, epochs=1, batch_size=1000, optimizer=SGD))
    graph = nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 2)])
    matrix = push_sum(graph).toarray()
    strategy = averaging(
        clients,
        topology(graphs.ring, n=3),
        mixing=lambda r: push_sum(graph),
        push=True,
        missing="sender",
    )
    run = played(inline(None), clients, strategy, 2)
    z = [parameters_of(student_of(clients))] * 3
    a = [1.0] * 3
    for _ in range(2):
        after = [hand_trained(own, clients, k, 0.1) for k, own in enumerate(z)]
        x = [
            {n: a[k] * z[k][n] + after[k][n] - z[k][n] for n in z[k]} for k in range(3)
        ]  # the numerators, Assran et al., algorithm 1
        a = [sum(matrix[i, j] * a[j] for j in range(3)) for i in range(3)]
        mixed = [{n: sum(matrix[i, j] * x[j][n] for j in range(3)) for n in x[0]} for i in range(3)]
        z = [{n: mixed[i][n] / a[i] for n in mixed[i]} for i in range(3)]
    assert max(abs(weight - 1) for weight in a) > 0.1
    for peer in range(3):
        pushed = run.grid.states.of(peer).metric_records["push"]["push-weight"]
        assert pushed == pytest.approx(a[peer])
        for name, value in arrays_in(run, peer).items():
            np.testing.assert_allclose(value, z[peer][name], rtol=1e-4, atol=1e-6)


def test_where_weights_are_pushed_none_is_ever_lost() -> None:
    clients = alike(8, train=partial(train, epochs=0, batch_size=8, optimizer=SGD))
    graph = topology(partial(sequences.epidemic, receivers=2), push_sum, 8, redraw=True)
    strategy = averaging(
        clients, graph, push=True, missing="sender", availability=there(8, **FLAKY)
    )
    run = played(inline(None), clients, strategy, 12)
    weights = [
        run.grid.states.of(k).metric_records.get("push", {}).get("push-weight", 1.0)
        for k in range(8)
    ]
    flying = sum(
        letter.weight
        * float(run.grid.payloads.read(letter.name, letter.sender)["metrics"]["push-weight"])
        for _, _, letter in strategy._meeting.neighbours._late
    )
    assert sum(weights) + flying == pytest.approx(8.0)
    assert min(weights) > 0.05
    assert run.reports[-1].train["lost-messages"] + run.reports[-2].train["lost-messages"]


def test_running_statistics_are_not_added_up() -> None:
    """The differences of D-PSGD could bring a variance below zero."""
    small = partial(resnet8, norm="batch")
    clients = alike(
        4, models={"linear": small}, student=small,
        train=partial(train, epochs=2, batch_size=8, optimizer=partial(torch.optim.SGD, lr=0.3)),
    )  # fmt: skip
    ring = topology(graphs.ring, n=4)
    run = played(inline(None), clients, averaging(clients, ring, order="combine_then_adapt"), 4)
    for peer in range(4):
        for name, value in arrays_in(run, peer).items():
            assert not name.endswith("running_var") or (value > 0).all(), name


def test_on_a_complete_graph_averaging_leaves_all_peers_equal() -> None:
    clients = alike()
    run = played(inline(None), clients, averaging(clients, topology(graphs.complete)), 2)
    first = arrays_in(run, 0)
    for peer in range(1, N):
        assert all(np.array_equal(first[k], v) for k, v in arrays_in(run, peer).items())
    assert run.reports[-1].train["consensus-distance"] < 1e-8


def pair_of(how: Messenger, own: Any, messenger: Any, clients: SimulatedClients, peer: int, r: int):  # type: ignore[no-untyped-def]
    models = (clients.models[clients.architectures[peer]], clients.student)
    pair, _ = learn_together(
        how, models, Pair(own, messenger, None), clients.splits.private,
        clients.partitions[peer], SEED, (r, peer),
    )  # fmt: skip
    return pair


def test_proxies_of_proxyfl_move_on_by_powers_of_two() -> None:
    how = Messenger(
        rule=partial(rules.dml, hard_loss_weight=0.5, soft_loss_weight=0.5),
        optimizer=SGD, epochs=1, batch_size=8,
    )  # fmt: skip
    clients = tiny_clients(4, messenger=how)
    graph = topology(sequences.one_peer_exponential, replace, n=4)
    run = played(inline(None), clients, averaging(clients, graph), 2)
    proxies: list[Any] = [parameters_of(student_of(clients))] * 4
    own = []
    for peer in range(4):
        rng = generator(SEED, Purpose.INITIALISE, 0, peer)
        model = clients.models[clients.architectures[peer]]
        private = clients.splits.private
        own.append(parameters_of(build(model, private.image_shape, private.num_classes, rng)))
    for server_round, step in ((1, 1), (2, 2)):
        pairs = [pair_of(how, own[k], proxies[k], clients, k, server_round) for k in range(4)]
        own = [pair.private for pair in pairs]
        proxies = [pairs[(k - step) % 4].messenger for k in range(4)]
    for peer in range(4):
        for name, value in arrays_in(run, peer, MESSENGER).items():
            np.testing.assert_array_equal(value, proxies[peer][name])
        for name, value in arrays_in(run, peer, MODEL).items():
            np.testing.assert_array_equal(value, own[peer][name])


def transfer(clients: SimulatedClients, **changes: Any) -> MutualTransfer:
    number = len(clients.architectures)
    graph = topology(sequences.random_matchings, metropolis_hastings, number, redraw=True)
    parts: dict[str, Any] = {
        "num_clients": number,
        "mixing": graph.mixing,
        "availability": there(number),
        "student_model": clients.student,
        "models": clients.models,
        "test": clients.splits.test,
        "seed": SEED,
        "how": Messenger(rule=rules.dml, optimizer=SGD, epochs=1, batch_size=8),
    }
    return MutualTransfer(**(parts | changes))


@pytest.mark.parametrize("keep", ["received", "own", "mean"])
def test_a_receiver_goes_on_with_the_network_that_was_asked_for(keep: Any) -> None:
    clients = alike(2)
    strategy = transfer(clients, keep=keep)
    run = played(inline(None), clients, strategy, 1)
    matrix = strategy._meeting.neighbours.mixing(1).tocoo()
    (receiver,), (sender,) = matrix.row.tolist(), matrix.col.tolist()
    begun = parameters_of(student_of(clients))
    tuned = next(
        clients.train([sender], [{k: torch.tensor(v) for k, v in begun.items()}], 1, "cpu")
    )
    assert not isinstance(tuned, Exception)
    models = (logistic_regression, logistic_regression)
    how = strategy.peer_lesson.how
    pair, _ = learn_together(
        how, models, Pair(begun, tuned.parameters, None), clients.splits.private,
        clients.partitions[receiver], SEED, (1, receiver),
    )  # fmt: skip
    expected = {
        "own": pair.private,
        "received": pair.messenger,
        "mean": {k: (v + pair.messenger[k]) / 2 for k, v in pair.private.items()},
    }[keep]
    for name, value in arrays_in(run, receiver).items():
        np.testing.assert_array_equal(value, expected[name])
    for name, value in arrays_in(run, sender).items():
        np.testing.assert_array_equal(value, tuned.parameters[name])


# --- cluster, then distil ---


def clustered(clients: SimulatedClients, first_rounds: int = 2) -> Stages:
    graph = topology(partial(graphs.clusters, bridges=False), uniform, 4, require_connected=False)
    offered: dict[str, Any] = {
        "num_clients": 4,
        "mixing": graph.mixing,
        "availability": there(4),
        "student_model": clients.student,
        "models": clients.models,
        "messenger": None,
        "proxy": clients.splits.proxy,
        "test": clients.splits.test,
        "seed": SEED,
        "student": student_of(clients),
        "something_else": 3,
    }
    second = partial(
        DistillationStrategy, distil=trainer(), scorer=uniform_trust, combiner=mean_of_probs,
        loss=kl, local_training=False,
    )  # fmt: skip
    return Stages(
        first=partial(ParameterGossip),
        second=second,
        first_rounds=first_rounds,
        rounds=5,
        **offered,
    )


def test_clusters_average_among_themselves_and_then_teach_a_student() -> None:
    clients = alike(4)
    run = played(inline(None), clients, clustered(clients), 3)
    models = [arrays_in(run, peer) for peer in range(4)]
    for one, other, equal in ((0, 1, True), (2, 3, True), (0, 2, False)):
        same = all(np.array_equal(models[one][name], models[other][name]) for name in models[0])
        assert same == equal, (one, other)
    before = played(inline(None), clients, clustered(clients), 2)
    assert states(before, 4) == states(run, 4)  # who is asked does not train any more
    phases = {e.phase for e in run.reports[2].exchanges}
    assert phases == {"evaluate.predictions"}
    assert "ensemble-accuracy" in run.reports[2].evaluated
    assert "consensus-distance" in run.reports[1].train


@pytest.mark.parametrize("done", [1, 2, 3])
def test_stages_go_on_from_their_state(done: int) -> None:
    clients = alike(4)
    pool = inline(None)
    whole = played(pool, clients, clustered(clients), 4)
    begun = clustered(clients)
    half = played(pool, clients, begun, done)
    resumed = clustered(clients)
    resumed.restore(begun.state())
    resumed.restore(resumed.state())  # as if nothing was run in between
    grid = PoolGrid(pool, clients.architectures, fault_of)
    grid.states.load(dict(half.grid.states.changed()))
    rest = played(pool, clients, resumed, 4, arrays=half.arrays, grid=grid, first_round=done + 1)
    assert rest.sha256 == whole.sha256
    assert states(rest, 4) == states(whole, 4)


def test_stages_that_cannot_be_are_refused() -> None:
    for number in (0, 5):
        with pytest.raises(ValueError, match=rf"strategy\.first_rounds={number}: .*from 1 to 4"):
            clustered(alike(4), number)
    with pytest.raises(ValueError, match=r"strategy\.local_training=false: expected"):
        distillation(alike(), local_training=False, feed_back=True)


# --- equal bits, faults, resume ---


def methods(faults: dict[str, Any]) -> dict[str, Any]:
    """Clients and strategy of each method, on a graph that suits it."""
    how = Messenger(rule=rules.dml, optimizer=SGD, epochs=1, batch_size=8)
    ring, matchings = topology(graphs.ring), topology(
        sequences.random_matchings, metropolis_hastings, redraw=True
    )  # fmt: skip
    epidemic = topology(partial(sequences.epidemic, receivers=2), push_sum, redraw=True)
    hop = topology(sequences.one_peer_exponential, replace)
    kinds = {
        "gossip": (tiny_clients(), lambda c: gossip(c, ring, availability=there(**faults))),
        "sweeps": (
            tiny_clients(),
            lambda c: gossip(c, matchings, sweeps=3, availability=there(**faults), missing="own"),
        ),
        "dpsgd": (
            alike(),
            lambda c: averaging(
                c, ring, order="combine_then_adapt", availability=there(**faults)
            ),
        ),
        "push_sum": (
            alike(),
            lambda c: averaging(
                c, epidemic, push=True, missing="sender", availability=there(**faults)
            ),
        ),
        "proxyfl": (
            tiny_clients(messenger=how),
            lambda c: averaging(c, hop, availability=there(**faults)),
        ),
        "defkt": (alike(), lambda c: transfer(c, availability=there(**faults))),
    }  # fmt: skip
    return kinds


def found_on(pool: Any, fatal: Path | None = None) -> dict[str, Any]:
    """States and rows of every method after four rounds, with faults."""
    found = {}
    for name, (clients, make) in methods(FLAKY).items():
        strategy = make(clients)
        clients.peer_lesson = getattr(strategy, "peer_lesson", None)
        pool.load(SimulatedApp(clients) if fatal is None else Deadly(clients, fatal))
        run = run_ours(pool, clients, strategy, 4)
        rows = [
            (report.train, [(e.client_id, e.metrics) for e in report.exchanges])
            for report in run.reports
        ]
        found[name] = (states(run), rows)
    return found


class Deadly(SimulatedApp):
    """Peer 3 kills its worker, once for each time that the file says."""

    def __init__(self, clients: SimulatedClients, file: Path) -> None:
        super().__init__(clients)
        self._file = file

    def serve(self, requests: Any, contexts: Any, device: str = "cpu") -> Any:
        for request, answer in zip(
            requests, super().serve(requests, contexts, device), strict=True
        ):
            left = int(self._file.read_text())
            if left and client_id_of(request.metadata.dst_node_id) == 3:
                self._file.write_text(str(left - 1))
                os.kill(os.getpid(), signal.SIGKILL)
            yield answer


def test_every_method_gives_the_same_bits_on_both_pools_with_drops_and_churn() -> None:
    here = found_on(inline(None))
    with open_pool("ray", SimulatedApp(tiny_clients())) as pool:
        there = found_on(pool)
    for name in here:
        assert here[name] == there[name], name
    trained = [round_[0] for _, rows in here.values() for round_ in rows]
    assert sum(metrics["lost-messages"] for metrics in trained) > 10  # or the faults were none
    assert sum(metrics["late-messages"] for metrics in trained) > 3


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_neither_the_number_of_workers_nor_their_death_changes_a_bit(
    workers: int, tmp_path: Path
) -> None:
    here, file = found_on(inline(None)), tmp_path / "lives"
    with open_pool("ray", SimulatedApp(tiny_clients()), workers) as pool:
        file.write_text("1")
        assert found_on(pool, file) == here
        assert file.read_text() == "0"


class Plain(Grid):
    """Flower's part of our grid only, so that strategies must carry payloads themselves."""

    def __init__(self, grid: PoolGrid) -> None:
        self._grid = grid

    set_run = create_message = push_messages = pull_messages = None  # type: ignore[assignment]

    @property
    def run(self) -> Any:
        return self._grid.run

    def get_node_ids(self) -> Iterable[int]:
        return self._grid.get_node_ids()

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
        return self._grid.send_and_receive(messages)


@pytest.mark.parametrize("name", ["gossip", "sweeps", "dpsgd", "push_sum", "proxyfl", "defkt"])
def test_over_any_grid_of_flowers_the_bits_are_the_same(name: str) -> None:
    clients, make = methods(FLAKY)[name]
    ours = states(played(inline(None), clients, make(clients), 3))
    strategy = make(clients)
    clients.peer_lesson = getattr(strategy, "peer_lesson", None)
    grid = PoolGrid(inline(SimulatedApp(clients)), clients.architectures, fault_of)
    plain, arrays = Plain(grid), write_arrays(parameters_of(student_of(clients)))
    for server_round in (1, 2, 3):
        grid.begin_round(server_round)
        asked = strategy.configure_train(server_round, arrays, ConfigRecord(), plain)
        replies = list(plain.send_and_receive(asked))
        arrays = strategy.aggregate_train(server_round, replies)[0] or arrays
        asked = strategy.configure_evaluate(server_round, arrays, ConfigRecord(), plain)
        strategy.aggregate_evaluate(server_round, plain.send_and_receive(asked))
    theirs = {k: grid.states._pool.frozen(grid.states.handle(k)) for k in range(N)}
    assert theirs == ours


@pytest.mark.parametrize("name", ["gossip", "sweeps", "dpsgd", "push_sum", "proxyfl", "defkt"])
def test_a_run_goes_on_from_its_state_with_what_is_on_its_way(name: str) -> None:
    clients, make = methods(FLAKY)[name]
    pool = inline(None)
    whole = played(pool, clients, make(clients), 5)
    begun = make(clients)
    half = played(pool, clients, begun, 3)
    resumed = make(clients)
    resumed.restore(begun.state())
    grid = PoolGrid(pool, clients.architectures, fault_of)
    grid.states.load(dict(half.grid.states.changed()))
    rest = played(pool, clients, resumed, 5, arrays=half.arrays, grid=grid, first_round=4)
    assert states(rest) == states(whole)
    assert rest.reports[-1].train == whole.reports[-1].train


class Lying(SimulatedApp):
    """Peer 1 sends neighbours what cannot be mixed."""

    def __init__(self, clients: SimulatedClients, spoil: Any) -> None:
        super().__init__(clients)
        self._spoil = spoil

    def serve(self, requests: Any, contexts: Any, device: str = "cpu") -> Any:
        for request, answer in zip(
            requests, super().serve(requests, contexts, device), strict=True
        ):
            mine = client_id_of(request.metadata.dst_node_id) == 1
            if mine and request.metadata.message_type == "train.own":
                self._spoil(answer.content)
            yield answer


def other_shape(content: Any) -> None:
    arrays = read_arrays(content["arrays"])
    content["arrays"] = write_arrays({name: value[:1] for name, value in arrays.items()})


def other_names(content: Any) -> None:
    content["arrays"] = write_arrays({"w": np.zeros(3, dtype=np.float32)})


def no_weight(content: Any) -> None:
    content["metrics"]["push-weight"] = -3.0


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(other_shape, "float32["), (other_names, "is None, expected"), (no_weight, "push-weight")],
)
def test_what_a_peer_sends_is_screened_before_it_is_mixed(spoil: Any, reason: str) -> None:
    clients = alike()
    graph = topology(graphs.ring, push_sum)
    strategy = averaging(clients, graph, push=True, missing="sender")
    run = run_ours(inline(Lying(clients, spoil)), clients, strategy)
    (failure,) = [e for e in run.reports[0].exchanges if e.failure]
    assert failure.client_id == 1
    assert reason in failure.failure


class Deaf(SimulatedApp):
    """Nobody can take in what neighbours sent."""

    def serve(self, requests: Any, contexts: Any, device: str = "cpu") -> Any:
        for request, answer in zip(
            requests, super().serve(requests, contexts, device), strict=True
        ):
            taking = request.metadata.message_type == "train.take"
            yield OSError("no disk left") if taking else answer


def test_the_quorum_is_of_each_kind_of_message() -> None:
    clients = alike()
    strategy = averaging(clients, topology(graphs.ring))
    with pytest.raises(QuorumLost, match="only 0 of 5 replies are usable"):
        run_ours(inline(Deaf(clients)), clients, strategy)


class Raising(SimulatedApp):
    """Peer 1 cannot train."""

    def serve(self, requests: Any, contexts: Any, device: str = "cpu") -> Any:
        for request, answer in zip(
            requests, super().serve(requests, contexts, device), strict=True
        ):
            mine = client_id_of(request.metadata.dst_node_id) == 1
            trains = request.metadata.message_type.startswith(("train.p", "train.o"))
            yield OSError("no disk left") if mine and trains else answer


@pytest.mark.parametrize("make", [gossip, averaging])
def test_a_peer_that_fails_is_a_missing_neighbour(make: Any) -> None:
    clients = alike()
    strategy = make(clients, topology(graphs.ring), missing="renormalise")
    clients.peer_lesson = getattr(strategy, "peer_lesson", None)
    run = run_ours(inline(Raising(clients)), clients, strategy)
    failed = {e.client_id: e.failure for e in run.reports[0].exchanges if e.failure}
    assert failed == {1: "OSError: no disk left"}
    assert run.reports[0].train["messages"] == 10.0 - 2.0  # nobody hears peer 1, and it hears two


def test_a_rule_that_fails_where_peers_are_ends_the_run_with_its_traceback() -> None:
    clients = tiny_clients()
    strategy = gossip(clients, topology(graphs.ring))
    object.__setattr__(strategy.rule, "combiner", _broken)
    with pytest.raises(RuntimeError, match=r"(?s)rule failed where clients run:.*my combiner"):
        played(inline(None), clients, strategy, 1)


def _broken(logits: Any, weights: Any, temperature: float) -> Any:
    if len(logits) < N:  # not where all peers are one neighbourhood
        raise ZeroDivisionError("my combiner")
    return mean_of_probs(logits, weights, temperature)


SHIPPED: list[Any] = [
    graphs.ring, graphs.line, graphs.star, graphs.torus, graphs.complete, graphs.k_regular,
    graphs.small_world, graphs.erdos_renyi, graphs.static_exponential,
    partial(graphs.static_exponential, directed=True), graphs.clusters,
    sequences.one_peer_exponential, sequences.random_matchings, sequences.epidemic,
]  # fmt: skip


@pytest.mark.parametrize("n", range(2, 10))
def test_every_topology_runs_to_its_end(n: int) -> None:
    nothing = partial(train, epochs=0, batch_size=64, optimizer=SGD)
    clients = alike(n, train=nothing)
    pool = inline(None)
    for rule in SHIPPED:
        name = getattr(rule, "__name__", "directed")
        redraw = name in ("random_matchings", "epidemic")
        graph = topology(rule, push_sum, n, redraw=redraw)
        strategy = averaging(clients, graph, push=True, missing="sender")
        run = played(pool, clients, strategy, 2)
        assert run.reports[-1].train["consensus-distance"] < 1e-6, name  # all began alike


# --- what is reported, and what is refused ---


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


def test_neighbours_are_compared_by_hand() -> None:
    logits = torch.tensor([[[0.0, 0.0]], [[0.0, 0.0]], [[100.0, 0.0]]])
    teachers = TeacherPredictions(
        (0, 1, 3), logits, torch.ones(3, 1, dtype=torch.bool), None, torch.ones(3)
    )
    everyone = np.ones(4, dtype=np.bool_)
    ends = np.array([0, 1, 3, 2]), np.array([1, 0, 1, 0])  # peer 2 has not answered
    found = neighbour_drift(GraphView(1, *ends, everyone, everyone, teachers))
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    apart = entropy - np.log(2) / 2  # of (1/2, 1/2) and (1, 0)
    assert found["neighbour_js"] == pytest.approx(apart / 2)
    assert found["neighbour_disagreement"] == 0.0


def test_neighbours_are_compared_on_what_both_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    votes = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 1]])
    logits = 100.0 * torch.nn.functional.one_hot(votes, 2)
    mask = torch.tensor([[True, True, False], [True, True, True], [False, True, True]])
    teachers = TeacherPredictions((0, 1, 2), logits, mask, None, torch.ones(3))
    everyone = np.ones(3, dtype=np.bool_)
    ends = np.array([0, 1, 2]), np.array([1, 2, 0])
    view = GraphView(1, *ends, everyone, everyone, teachers)
    # 0 and 1: differ on the second of two; 0 and 2: on their only one; 1 and 2: on none of two.
    assert neighbour_drift(view)["neighbour_disagreement"] == pytest.approx(2 / 5)
    assert neighbour_drift(view)["neighbour_js"] == pytest.approx(2 / 5 * np.log(2))
    monkeypatch.setattr(
        "sim.analysis.probes.neighbours.MOST_PAIRS", 2
    )  # the first and the last pair
    assert neighbour_drift(view)["neighbour_disagreement"] == pytest.approx(1 / 4)


def test_a_round_reports_bytes_edges_and_influence() -> None:
    clients = tiny_clients()
    views: list[GraphView] = []
    strategy = gossip(clients, topology(graphs.ring), watch=views.append)
    run = played(inline(None), clients, strategy, 2)
    train_metrics = run.reports[0].train
    assert train_metrics["messages"] == 10.0
    # Logits of all distilled examples, four classes, float32, beside records and array headers.
    least = len(strategy.cut.distilled_ids) * 4 * 4
    assert least < train_metrics["bytes-per-edge"] < least + 1000
    assert train_metrics["edge-bytes"] == 10 * train_metrics["bytes-per-edge"]
    assert [r.train["informed-share"] for r in run.reports] == [3 / 5, 1.0]
    pairs = sorted(zip(views[0].senders.tolist(), views[0].receivers.tolist(), strict=True))
    assert pairs == sorted((j, i) for i in range(N) for j in ((i + 1) % N, (i - 1) % N))
    assert views[0].teachers is not None
    assert views[0].teachers.client_ids == tuple(range(N))
    asked = [e for e in run.reports[0].exchanges if e.phase == TRAIN_TARGETS]
    assert all(e.request_bytes > 2 * train_metrics["bytes-per-edge"] for e in asked)


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (gossip, {"sweeps": 0}, r"strategy\.sweeps=0"),
        (gossip, {"sweeps": 2, "combiner": unfolded}, "sweeps=2: expected 1"),
        (gossip, {"sweeps": 2, "weight_cap": 0.5}, "sweeps=2: expected 1"),
        (gossip, {"temperature": 0.0}, "temperature=0.0"),
        (gossip, {"missing": "guess"}, r"strategy\.missing=guess"),
        (gossip, {"missing": "sender"}, r"strategy\.missing=sender"),
        (gossip, {"distil": lambda *a, **k: []}, r"strategy\.distil: expected clients\.training"),
        (averaging, {"order": "later"}, r"strategy\.order=later"),
        (averaging, {"push": True}, r"strategy\.missing=own: expected sender"),
        (averaging, {"missing": "drop"}, r"strategy\.missing=drop: expected renormalise or own"),
        (
            averaging,
            {"push": True, "missing": "sender", "order": "combine_then_adapt"},
            r"strategy\.push: expected strategy\.order",
        ),
        (averaging, {"models": {"mlp": mlp}}, "averages parameters"),
        (
            averaging,
            {"push": True, "missing": "sender", "mixing": lambda r: _ROWS},
            "a column of W",
        ),
        (averaging, {"mixing": lambda r: _ROWS.T.tocsr()}, r"a row of W.*strategy\.push=true"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(alike(), topology(graphs.ring), **changes)


_ROWS = csr_array(np.array([[0.5, 0.5, 0], [0.2, 0.4, 0.4], [0.0, 0.0, 1.0]]))


def test_mutual_transfer_is_between_pairs_of_one_architecture() -> None:
    with pytest.raises(ValueError, match=r"peer 0 has several neighbours in round 1.*matchings"):
        transfer(alike(), mixing=topology(graphs.ring).mixing)
    with pytest.raises(ValueError, match="averages parameters"):
        transfer(tiny_clients())
    with pytest.raises(ValueError, match=r"strategy\.how\.rule: .*'fusion'"):
        transfer(alike(), how=Messenger(rule=rules.ffl, optimizer=SGD, epochs=1, batch_size=8))
    with pytest.raises(ValueError, match=r"strategy\.keep=both"):
        transfer(alike(), keep="both")


def test_a_payload_that_is_not_there_is_named() -> None:
    from clients.messages.routing import Letter, Post

    clients = tiny_clients()
    grid = PoolGrid(inline(SimulatedApp(clients)), clients.architectures, fault_of)
    grid.begin_round(1)
    content = RecordDict({"config": ConfigRecord({"server-round": 1})})
    ask = [Message(content, dst_node_id=next(iter(grid.get_node_ids())), message_type="query.own")]
    post = Post({0: [Letter(3, "answers@1", 1.0)]}, lambda receiver, letters: RecordDict())
    with pytest.raises(KeyError, match="answers@1"):
        list(grid.send_with_post(ask, post, None))
