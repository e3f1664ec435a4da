"""What is averaged begins alike: the mean of clients that did not train is what they began with."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.models import logistic_regression, resnet8
from clients.models.factory import parameters_of
from clients.mutual import group_heads, rules
from clients.mutual.messenger import Messenger
from clients.population.clients import SimulatedClients
from clients.seeding import Purpose, generator, named_generator
from clients.training.loop import train
from sim.topology import graphs, sequences
from sim.topology.availability import Availability
from sim.topology.mixing import metropolis_hastings, push_sum, replace
from sim.topology.topology import Topology
from strategies.aggregation.parameters import starts_of
from strategies.decentralised.gossip_averaging import ParameterGossip
from strategies.server.averaging import Averaging
from tests.federations import SEED, inline, run_ours, simulated, student_of, tiny_clients
from tests.mutual_learning import mutual

SGD = partial(torch.optim.SGD, lr=0.1)
IDLE: dict[str, Any] = {"train": partial(train, epochs=0, batch_size=8, optimizer=SGD)}
NO_LESSON = Messenger(rule=rules.dml, optimizer=SGD, epochs=0, batch_size=8)
UNEQUAL = np.split(np.arange(120), [1, 4, 30, 63])
RULES: list[tuple[Any, Any, dict[str, Any]]] = [
    (rules.dml, None, {}),
    (rules.ffl, group_heads.Fusion, {}),
    (rules.one, group_heads.Gate, {}),
    (rules.okddip, group_heads.Attention, {}),
    (rules.codistillation, None, {"refresh_epochs": 2}),
]
"""Rule, head and options of `strategy=dml`, `ffl`, `one`, `okddip` and `codistillation`."""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule[0].__name__)
def test_peers_of_clients_that_did_not_train_are_what_these_began_with(rule: Any) -> None:
    """To the bit, however many examples each has: they are summed in double precision."""
    function, head, options = rule
    clients = tiny_clients(5, UNEQUAL, **IDLE)
    strategy = mutual(clients, rule=function, head=head, epochs=0, **options)
    run_ours(inline(simulated(clients)), clients, strategy, 2)
    starts = starts_of(clients.models, clients.splits.test, SEED)
    assert sorted(strategy.teaching.learned) == ["linear", "mlp"]
    for key, learned in strategy.teaching.learned.items():
        for name, value in starts[key].items():
            np.testing.assert_array_equal(learned[name], value)


def test_who_is_asked_for_the_first_time_later_begins_like_all_others() -> None:
    """With two of five clients a round, an architecture may be heard of late."""
    clients = tiny_clients(5, UNEQUAL, **IDLE)
    strategy = mutual(clients, rule=rules.dml, head=None, epochs=0, fraction=0.4)
    run = run_ours(inline(simulated(clients)), clients, strategy, 4)
    assert len({tuple(cohort) for cohort in run.cohorts()}) > 1
    starts = starts_of(clients.models, clients.splits.test, SEED)
    for key, learned in strategy.teaching.learned.items():
        for name, value in starts[key].items():
            np.testing.assert_array_equal(learned[name], value)


def test_with_clients_as_peers_each_begins_with_its_own_network() -> None:
    """Nothing is averaged, so nothing needs a common start."""
    clients = tiny_clients(5, UNEQUAL, **IDLE)
    few = {"peers": "clients", "most_peers": 4, "rule": rules.dml, "head": None, "epochs": 0}
    strategy = mutual(clients, **few)
    run_ours(inline(simulated(clients)), clients, strategy, 1)
    networks = clients.place("cpu").networks
    assert len(strategy.teaching.learned) == 4
    for key, learned in strategy.teaching.learned.items():
        kind, _, client_id = key.rpartition("-")
        begun = networks.fresh(kind, generator(SEED, Purpose.INITIALISE, 0, int(client_id)))
        for name, value in parameters_of(begun).items():
            np.testing.assert_array_equal(learned[name], value)


@settings(max_examples=30, deadline=None)
@given(names=st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=4, unique=True))
def test_a_start_is_of_its_architecture_alone_whatever_others_there_are(names: list[str]) -> None:
    test = tiny_clients().splits.test
    every = starts_of(dict.fromkeys(names, logistic_regression), test, SEED)
    (only,) = starts_of({names[0]: logistic_regression}, test, SEED).values()
    firsts = [every[name]["classifier.weight"][0, 0] for name in names]
    assert len(set(firsts)) == len(names)
    assert firsts[0] == only["classifier.weight"][0, 0]
    apart = named_generator(SEED + 1, Purpose.ARCHITECTURE, names[0]).random()
    assert apart != named_generator(SEED, Purpose.ARCHITECTURE, names[0]).random()


# --- strategies that have always begun alike ---


def gossiping(
    clients: SimulatedClients, rule: Any, mixing: Any, redraw: bool = False, **options: Any
) -> ParameterGossip:
    number = len(clients.architectures)
    graph = Topology(rule, mixing, num_peers=number, seed=SEED, redraw=redraw)
    return ParameterGossip(
        num_clients=number,
        mixing=graph.mixing,
        availability=Availability(num_peers=number, seed=SEED),
        student_model=clients.student,
        models=clients.models,
        messenger=clients.messenger,
        test=clients.splits.test,
        **options,
    )


def one_kind() -> SimulatedClients:
    small = partial(resnet8, norm="batch")
    kind: dict[str, Any] = {"architectures": ["net"] * 5, "models": {"net": small}}
    return tiny_clients(5, UNEQUAL, student=small, **kind, **IDLE)


def with_messengers() -> SimulatedClients:
    return tiny_clients(5, UNEQUAL, messenger=NO_LESSON, **IDLE)


LINE, EPIDEMIC = partial(gossiping, rule=graphs.line), partial(gossiping, rule=sequences.epidemic)
PUSHED: dict[str, Any] = {"push": True, "missing": "sender", "redraw": True}
MEANS: dict[str, tuple[Callable[[], SimulatedClients], Callable[..., Any], float]] = {
    "averaging": (one_kind, lambda clients: Averaging(seed=SEED), 2.0),
    "fml": (with_messengers, lambda clients: Averaging(seed=SEED), 2.0),
    "adapt_then_combine": (one_kind, partial(LINE, mixing=metropolis_hastings), 0.0),
    "dpsgd": (
        one_kind, partial(LINE, mixing=metropolis_hastings, order="combine_then_adapt"), 0.0,
    ),
    "push_sum": (one_kind, partial(EPIDEMIC, mixing=push_sum, **PUSHED), 3.0),
    "proxyfl": (
        with_messengers,
        partial(gossiping, rule=sequences.one_peer_exponential, mixing=replace),
        0.0,
    ),
}  # fmt: skip
"""Clients, strategy, and how many units in the last place rounding may take: none where sums are
made in double precision; a product, K sums and a ratio in single precision, half a unit each, where
they are not, which only seldom go one way."""


@pytest.mark.parametrize("name", MEANS)
def test_the_mean_of_clients_that_did_not_train_is_their_start(name: str) -> None:
    make, strategy, most = MEANS[name]
    clients = make()
    run = run_ours(inline(simulated(clients)), clients, strategy(clients), 1)
    assert not any(exchange.failure for exchange in run.reports[0].exchanges)
    for key, begun in parameters_of(student_of(clients)).items():
        apart = np.abs(run.parameters[key] - begun)
        bound = most * np.spacing(np.abs(begun)) if begun.dtype == np.float32 else 0
        assert (apart <= bound).all(), (key, apart.max())
