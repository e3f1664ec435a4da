"""Federations without a server: graphs, strategies, and peers that are alike."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from flwr.serverapp import Grid

from clients.handlers.state import MODEL
from clients.messages.arrays import read_arrays
from clients.models import logistic_regression
from clients.models.discriminator import DiscriminatorRecipe
from clients.mutual import rules
from clients.mutual.messenger import Messenger
from clients.population.clients import SimulatedClients
from clients.training.losses import kl
from sim.engine.grid import PoolGrid
from sim.topology import sequences
from sim.topology.availability import Availability
from sim.topology.mixing import metropolis_hastings, uniform
from sim.topology.topology import Topology
from strategies.aggregation.combiners import mean_of_probs
from strategies.aggregation.scorers import max_prob
from strategies.decentralised.def_kt import MutualTransfer
from strategies.decentralised.gossip_averaging import ParameterGossip
from strategies.decentralised.gossip_distillation import Gossip
from tests.federations import SEED, Run, run_ours, simulated, tiny_clients, trainer
from tests.parts import whole

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
    strategy: Gossip = whole(Gossip, parts | changes)
    return strategy


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
    pool.load(simulated(clients, strategy))
    return run_ours(pool, clients, strategy, rounds, **options)


def states(run: Run, n: int = N) -> dict[int, Any]:
    """Every peer's whole state, as bytes."""
    return {k: run.grid.states._pool.frozen(run.grid.states.handle(k)) for k in range(n)}


def arrays_in(run: Run, peer: int, name: str = MODEL) -> Any:
    return read_arrays(run.grid.states.of(peer).array_records[name])


def unfolded(logits: Any, weights: Any, temperature: float) -> Any:
    """Combine as `mean_of_probs` does, without saying that it is a mean."""
    return mean_of_probs(logits, weights, temperature)


def pair_learning() -> Messenger:
    return Messenger(rule=rules.dml, optimizer=SGD, epochs=1, batch_size=8)


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
        "how": pair_learning(),
    }
    return MutualTransfer(**(parts | changes))


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
