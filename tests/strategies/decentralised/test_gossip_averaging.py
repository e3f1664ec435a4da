"""Parameters over graphs: two rounds by hand, and push-sum."""

from functools import partial
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from clients.handlers.state import MESSENGER, MODEL
from clients.models import mlp, resnet8
from clients.models.factory import build, parameters_of
from clients.mutual import rules
from clients.mutual.messenger import Messenger, Pair, learn_together
from clients.population.clients import SimulatedClients
from clients.seeding import Purpose, generator
from clients.training.loop import train
from sim.topology import graphs, sequences
from sim.topology.mixing import push_sum, replace
from tests.federations import SEED, inline, student_of, tiny_clients
from tests.peers import (
    FLAKY,
    SGD,
    N,
    alike,
    arrays_in,
    averaging,
    gossip,
    played,
    there,
    topology,
    unfolded,
)

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
    error = (probs - np.eye(private.task.num_classes)[private.labels[indices]]) / len(indices)
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
        clients.partitions[peer], clients.labels(peer, r), SEED, (r, peer),
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
        own.append(parameters_of(build(model, private.task, rng)))
    for server_round, step in ((1, 1), (2, 2)):
        pairs = [pair_of(how, own[k], proxies[k], clients, k, server_round) for k in range(4)]
        own = [pair.private for pair in pairs]
        proxies = [pairs[(k - step) % 4].messenger for k in range(4)]
    for peer in range(4):
        for name, value in arrays_in(run, peer, MESSENGER).items():
            np.testing.assert_array_equal(value, proxies[peer][name])
        for name, value in arrays_in(run, peer, MODEL).items():
            np.testing.assert_array_equal(value, own[peer][name])


# --- what is reported, and what is refused ---


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (gossip, {"sweeps": 0}, r"strategy\.sweeps=0"),
        (gossip, {"sweeps": 2, "combiner": unfolded}, "sweeps=2: expected 1"),
        (gossip, {"sweeps": 2, "weight_cap": 0.5}, "sweeps=2: expected 1"),
        (gossip, {"temperature": 0.0}, "temperature=0.0"),
        (gossip, {"chunks": 2}, r"strategy\.proxy_split\.chunks=2: expected 1, this strategy"),
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
