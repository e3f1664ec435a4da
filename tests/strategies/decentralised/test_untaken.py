"""Pushed weight whose receiver cannot take it: none is made from nothing, it comes again."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from clients.app import SimulatedApp
from clients.handlers.peer_parameters import TAKE_MIXED, TRAIN_OWN
from clients.handlers.state import MODEL, PUSH
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import client_id_of
from clients.models.factory import parameters_of
from clients.training.loop import train
from sim.engine.grid import PoolGrid
from sim.topology import sequences
from sim.topology.mixing import push_sum
from strategies.decentralised.gossip_averaging import ParameterGossip
from tests.federations import HANDLERS, Run, inline, run_ours, simulated, student_of
from tests.peers import SGD, Plain, alike, averaging, there, topology

N, ROUNDS = 5, 7
LATE = {"drop_probability": 0.2, "late_probability": 0.4, "late_rounds": 2}
FAILS = {(1, 1), (2, 1), (2, 3), (4, 0)}
"""Round and peer of takes that fail: one of them twice running, the last well before the end."""


def fails(request: Any) -> bool:
    about = request.content.config_records["config"]["server-round"]
    return (about, client_id_of(request.metadata.dst_node_id)) in FAILS


class Untaking(SimulatedApp):
    """Some peers cannot take in what neighbours pushed; how is to be chosen."""

    def __init__(self, clients: Any, how: str) -> None:
        super().__init__(clients, HANDLERS)
        self._how = how

    def serve(self, requests: Any, contexts: Any, device: str = "cpu") -> Any:
        answers = super().serve(requests, contexts, device)
        for request, answer in zip(requests, answers, strict=True):
            if request.metadata.message_type != TAKE_MIXED.kind or not fails(request):
                yield answer
            elif self._how == "raises":
                yield OSError("no disk left")
            elif self._how == "is no reply":
                yield None
            else:
                yield answer


class Losing(Plain):
    """Peers take what came, and the replies that say so are lost."""

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
        messages = list(messages)
        lost = {m.metadata.dst_node_id for m in messages if _is_take(m) and fails(m)}
        replies = super().send_and_receive(messages)
        return [reply for reply in replies if reply.metadata.src_node_id not in lost]


def _is_take(message: Any) -> bool:
    return bool(message.metadata.message_type == TAKE_MIXED.kind)


def pushing(clients: Any) -> ParameterGossip:
    graph = topology(partial(sequences.epidemic, receivers=2), push_sum, N, redraw=True)
    return averaging(clients, graph, push=True, missing="sender", availability=there(N, **LATE))


def idle() -> Any:
    return alike(N, train=partial(train, epochs=0, batch_size=8, optimizer=SGD))


def unlike(clients: Any, pool: Any) -> tuple[PoolGrid, dict[str, float]]:
    """Give each peer parameters of its own; return their sums by name."""
    start = parameters_of(student_of(clients))
    rng = np.random.default_rng(0)
    each = [
        {n: rng.normal(size=a.shape).astype(a.dtype) for n, a in start.items()} for _ in range(N)
    ]
    grid = PoolGrid(pool, clients.architectures)
    for peer, own in enumerate(each):
        grid.states.put(peer, pool.keep(_frozen(RecordDict({MODEL: write_arrays(own)}))))
    return grid, {name: float(sum(own[name].sum() for own in each)) for name in start}


def _frozen(state: RecordDict) -> bytes:
    from sim.workers.state_serialization import freeze

    return freeze(state)


def all_there_is(
    grid: PoolGrid, strategy: ParameterGossip, payloads: Any
) -> tuple[float, dict[str, float]]:
    """Add up weights and numerators, of peers and on their way."""
    mass, sums = 0.0, dict[str, float]()
    for peer in range(N):
        state = grid.states.of(peer)
        weight = float(state.metric_records.get(PUSH, {}).get("push-weight", 1.0))
        mass += weight
        for name, value in read_arrays(state.array_records[MODEL]).items():
            sums[name] = sums.get(name, 0.0) + weight * float(value.sum())
    for _, _, letter in strategy._meeting.neighbours._late:
        payload = payloads.read(letter.name, letter.sender)
        mass += letter.weight * float(payload["metrics"]["push-weight"])
        for name, value in read_arrays(payload["arrays"]).items():
            sums[name] += letter.weight * float(value.sum())
    return mass, sums


@pytest.mark.parametrize("how", ["raises", "is no reply"])
def test_what_cannot_be_taken_comes_again_and_no_weight_is_made(how: str) -> None:
    clients = idle()
    pool, strategy = inline(Untaking(clients, how)), pushing(clients)
    grid, begun = unlike(clients, pool)
    run = run_ours(pool, clients, strategy, ROUNDS, grid=grid, quorum=0.1)
    failed = {
        (report.server_round, each.client_id, each.phase)
        for report in run.reports
        for each in report.exchanges
        if each.failure
    }
    assert failed == {(*each, TAKE_MIXED.kind) for each in FAILS}
    pushed = [
        {e.client_id for e in report.exchanges if e.phase == TRAIN_OWN.kind}
        for report in run.reports
    ]
    assert [{*range(N)} - each for each in pushed[:5]] == [set(), {1}, {1, 3}, set(), {0}]
    mass, sums = all_there_is(grid, strategy, grid.payloads)
    assert mass == pytest.approx(N, abs=1e-12 * N)
    for name, total in begun.items():
        assert sums[name] == pytest.approx(total, abs=1e-4), name


def test_what_was_taken_without_a_word_is_not_taken_twice() -> None:
    clients = idle()
    pool, strategy = inline(simulated(clients)), pushing(clients)
    grid, begun = unlike(clients, pool)
    plain, arrays = Losing(grid), write_arrays(parameters_of(student_of(clients)))
    for server_round in range(1, ROUNDS + 1):
        grid.begin_round(server_round)
        asked = strategy.configure_train(server_round, arrays, ConfigRecord(), plain)
        strategy.aggregate_train(server_round, plain.send_and_receive(asked))
    mass, sums = all_there_is(grid, strategy, strategy._meeting._routed().payloads)
    assert mass == pytest.approx(N, abs=1e-12 * N)
    for name, total in begun.items():
        assert sums[name] == pytest.approx(total, abs=1e-4), name


def test_a_run_goes_on_with_what_could_not_be_taken() -> None:
    """After round 2 two peers owe."""
    clients = idle()
    pool = inline(Untaking(clients, "raises"))

    def states_of(grid: PoolGrid) -> list[Any]:
        return [grid.states._pool.frozen(grid.states.handle(k)) for k in range(N)]

    def run(strategy: Any, grid: PoolGrid, rounds: int, **options: Any) -> Run:
        return run_ours(pool, clients, strategy, rounds, grid=grid, quorum=0.1, **options)

    whole, _ = unlike(clients, pool)
    expected = run(pushing(clients), whole, ROUNDS)
    begun, half = pushing(clients), unlike(clients, pool)[0]
    first = run(begun, half, 2)
    resumed, rest = pushing(clients), PoolGrid(pool, clients.architectures)
    resumed.restore(begun.state())
    rest.states.load(dict(half.states.changed()))
    last = run(resumed, rest, ROUNDS, arrays=first.arrays, first_round=3)
    assert states_of(rest) == states_of(whole)
    assert last.reports[-1].train == expected.reports[-1].train


def test_who_could_not_take_has_not_been_influenced() -> None:
    clients = idle()
    strategy = pushing(clients)
    run_ours(inline(Untaking(clients, "raises")), clients, strategy, 2, quorum=0.1)
    table = strategy._meeting.neighbours.informed()
    assert table[1].tolist() == [False, True, False, False, False]
    assert table[2].tolist() == [True, True, True, True, False]  # who took heard of 1 too
