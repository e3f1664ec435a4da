"""Fields of one's own without a server, and in mutual learning: weighed by, on both pools."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from clients.messages import shipped_fields
from clients.messages.answers import Answers
from clients.messages.field import Field
from clients.messages.field_source import Asked
from clients.messages.round_views import RoundView
from clients.population.clients import SimulatedClients
from sim.topology import graphs
from tests.federations import Run, open_pool, run_ours, simulated, tiny_clients
from tests.mutual_learning import mutual
from tests.peers import gossip, topology


def said_energy(asked: Asked) -> Tensor:
    return asked.logits.logsumexp(-1).exp()


def by_energy(answers: Answers) -> Tensor:
    return answers["energy"]


ASK = {"energy": Field(said_energy), "features": shipped_fields.features(codec="uint8")}
Make = Callable[..., Any]


def of_peers(clients: SimulatedClients, **changes: Any) -> Any:
    return gossip(clients, topology(graphs.ring), **changes)


def swept(clients: SimulatedClients, **changes: Any) -> Any:
    ask = {"ask": {"energy": ASK["energy"]}} if "ask" in changes else {}
    return gossip(clients, topology(graphs.complete), sweeps=2, **changes | ask)


def states(kind: str, make: Make, **changes: Any) -> tuple[Run, list[Any], list[RoundView]]:
    clients, views = tiny_clients(), list[RoundView]()
    strategy = make(clients, report=views.append, **changes)
    with open_pool(kind, simulated(clients, strategy)) as pool:
        run = run_ours(pool, clients, strategy, 2)
        failures = [e.failure for r in run.reports for e in r.exchanges if e.failure]
        assert not failures
        losses = [[e.metrics for e in report.exchanges] for report in run.reports]
    return run, losses, views


@pytest.mark.parametrize("kind", ["inline", "ray"])
@pytest.mark.parametrize("make", [of_peers, swept, mutual])
def test_answers_are_weighed_by_what_is_said(make: Make, kind: str) -> None:
    run, said, views = states(kind, make, scorer=by_energy, ask=ASK)
    again, same, _ = states("inline", make, scorer=by_energy, ask=ASK)
    _, plain, _ = states("inline", make)
    assert run.sha256 == again.sha256
    assert said == same
    assert said != plain
    energies = views[-1].teachers["energy"]
    assert energies.shape == views[-1].weights.shape
    assert (energies > 0).all()
