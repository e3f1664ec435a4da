"""Federations without a server: equal bits on any pool, faults, resume."""

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord

from clients.app import SimulatedApp
from clients.messages.arrays import write_arrays
from clients.messages.codecs import Precision
from clients.messages.requests import client_id_of
from clients.models.factory import parameters_of
from clients.mutual import rules
from clients.mutual.messenger import Messenger
from clients.population.clients import SimulatedClients
from clients.training.loop import train
from sim.engine.grid import PoolGrid
from sim.topology import graphs, sequences
from sim.topology.mixing import metropolis_hastings, push_sum, replace
from tests.federations import (
    handlers_of,
    inline,
    open_pool,
    run_ours,
    simulated,
    student_of,
    tiny_clients,
)
from tests.peers import (
    FLAKY,
    SGD,
    N,
    Plain,
    alike,
    averaging,
    gossip,
    played,
    states,
    there,
    topology,
    transfer,
)


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
        app = simulated(clients, strategy)
        pool.load(app if fatal is None else Deadly(clients, strategy, fatal))
        run = run_ours(pool, clients, strategy, 4)
        rows = [
            (report.train, [(e.client_id, e.metrics) for e in report.exchanges])
            for report in run.reports
        ]
        found[name] = (states(run), rows)
    return found


class Deadly(SimulatedApp):
    """Peer 3 kills its worker, once for each time that the file says."""

    def __init__(self, clients: SimulatedClients, strategy: Any, file: Path) -> None:
        super().__init__(clients, handlers_of(strategy))
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
    with open_pool("ray", simulated(tiny_clients())) as pool:
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
    with open_pool("ray", simulated(tiny_clients()), workers) as pool:
        file.write_text("1")
        assert found_on(pool, file) == here
        assert file.read_text() == "0"


@pytest.mark.parametrize("name", ["gossip", "sweeps", "dpsgd", "push_sum", "proxyfl", "defkt"])
def test_over_any_grid_of_flowers_the_bits_are_the_same(name: str) -> None:
    clients, make = methods(FLAKY)[name]
    ours = states(played(inline(None), clients, make(clients), 3))
    strategy = make(clients)
    grid = PoolGrid(inline(simulated(clients, strategy)), clients.architectures)
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
    grid = PoolGrid(pool, clients.architectures)
    grid.states.load(dict(half.grid.states.changed()))
    rest = played(pool, clients, resumed, 5, arrays=half.arrays, grid=grid, first_round=4)
    assert states(rest) == states(whole)
    assert rest.reports[-1].train == whole.reports[-1].train


def test_late_payloads_weigh_after_a_resume_what_a_codec_made_of_them() -> None:
    clients = alike(codec=Precision("uint8"))
    late = there(late_probability=0.7)
    pool = inline(None)

    def made() -> Any:
        return averaging(clients, topology(graphs.ring), availability=late)

    whole, begun = played(pool, clients, made(), 3), made()
    half = played(pool, clients, begun, 2)
    first, resumed = made(), made()
    first.restore(begun.state())
    resumed.restore(first.state())  # saved again before any round
    grid = PoolGrid(pool, clients.architectures)
    grid.states.load(dict(half.grid.states.changed()))
    rest = played(pool, clients, resumed, 3, arrays=half.arrays, grid=grid, first_round=3)
    assert rest.reports[-1].train["late-messages"] > 0
    one, other = (
        (run.reports[-1].train, [(e.client_id, e.request_bytes) for e in run.grid.exchanges])
        for run in (whole, rest)
    )
    assert one == other


SHIPPED: list[Any] = [
    graphs.ring, graphs.line, graphs.star, graphs.torus, graphs.complete, graphs.k_regular,
    graphs.small_world, graphs.erdos_renyi, graphs.static_exponential,
    partial(graphs.static_exponential, directed=True), graphs.clusters,
    sequences.one_peer_exponential, sequences.random_matchings, sequences.epidemic,
]  # fmt: skip


@pytest.mark.parametrize(
    "n", [pytest.param(n, marks=() if n in (2, 3, 8) else pytest.mark.slow) for n in range(2, 10)]
)
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
