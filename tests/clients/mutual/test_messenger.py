"""Messengers: what travels, and what stays with its client."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from clients.messages.arrays import read_arrays
from clients.messages.requests import ARRAYS
from clients.models import lenet5, logistic_regression, mlp
from clients.models.factory import build, parameters_of
from clients.mutual import group_heads, rules
from clients.mutual.messenger import Messenger, Pair, learn_together
from clients.population.clients import SimulatedClients
from clients.population.rehearsal import rehearse_messenger
from clients.seeding import Purpose, generator
from clients.training.loop import train
from clients.training.losses import cross_entropy
from strategies.aggregation.combiners import mean_of_logits
from strategies.server.averaging import Averaging
from tests.federations import SEED, inline, open_pool, run_ours, simulated, tiny_clients
from tests.mutual_learning import SGD, run


def messengers(**changes: Any) -> SimulatedClients:
    how = Messenger(
        rule=partial(rules.dml, hard_loss_weight=0.5, soft_loss_weight=0.5),
        optimizer=SGD,
        epochs=3,
        batch_size=8,
    )
    return tiny_clients(messenger=how, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"head": group_heads.Projection},
            r"clients\.messenger\.head: the rule does not look at it",
        ),
        ({"rule": rules.ffl}, r"clients\.messenger\.rule: .*'fusion'.*architecture 'mlp'"),
        (
            {"rule": rules.ffl, "head": group_heads.Fusion, "batch_size": 1},
            r"clients\.messenger\.batch_size=1: the head cannot learn .*architecture 'mlp'",
        ),
    ],
)
def test_a_messenger_that_cannot_learn_is_refused(changes: Any, message: str) -> None:
    clients = messengers()
    assert clients.messenger is not None
    how = replace(clients.messenger, **changes)
    with pytest.raises(ValueError, match=message):
        rehearse_messenger(how, clients.student, {"mlp": mlp}, clients.splits.private)


@pytest.mark.parametrize("kind", ["inline", "ray"])
def test_fml_keeps_private_networks_and_averages_messengers(kind: str) -> None:
    clients = messengers()
    with open_pool(kind, simulated(clients)) as pool:
        result = run_ours(pool, clients, Averaging(seed=SEED), 3)
        states = [result.grid.states.of(k).array_records["model"] for k in range(5)]
    shapes = [{name: tuple(a.shape) for name, a in state.items()} for state in states]
    assert shapes[0] != shapes[1]  # two architectures
    assert shapes[0] == shapes[2] == {k: v.shape for k, v in result.parameters.items()}
    assert read_arrays(states[0])["classifier.weight"].tobytes() != (
        read_arrays(states[2])["classifier.weight"].tobytes()
    )
    evaluated = result.reports[-1].evaluated
    assert evaluated["accuracy"] > 0.5  # of the private networks on the test set
    assert result.reports[-1].student["accuracy"] > 0.5
    reference = run_ours(inline(simulated(clients)), clients, Averaging(seed=SEED), 3)
    assert result.sha256 == reference.sha256


def test_fedkds_projection_stays_with_its_client() -> None:
    how = Messenger(
        rule=rules.adaptive_mutual,
        optimizer=SGD,
        epochs=1,
        batch_size=8,
        head=group_heads.Projection,
    )
    clients = tiny_clients(
        messenger=how,
        models={"linear": lenet5, "mlp": partial(mlp, hidden=(8,))},
        student=logistic_regression,
    )
    result = run_ours(inline(simulated(clients)), clients, Averaging(seed=SEED), 2)
    heads_ = [read_arrays(result.grid.states.of(k).array_records["head"]) for k in range(5)]
    assert not np.array_equal(heads_[0]["linear.weight"], heads_[2]["linear.weight"])
    assert ARRAYS not in result.grid.states.of(0)


def test_a_messenger_with_the_soft_loss_off_is_its_own_solo_training() -> None:
    """The hard loss alone: what both become is plain local training, bit for bit."""
    numbers: dict[str, Any] = {"optimizer": SGD, "epochs": 2, "batch_size": 16}
    how = Messenger(rule=partial(rules.dml, soft_loss_weight=0.0), **numbers)
    private, ids = tiny_clients().splits.private, np.arange(37)
    models = (partial(mlp, hidden=(3,)), logistic_regression)
    networks = [build(m, private.task, np.random.default_rng(1)) for m in models]
    pair = Pair(*(parameters_of(network) for network in networks), None)
    own = private.labels[ids]
    learned, _ = learn_together(how, models, pair, private, ids, own, SEED, (1, 0))
    labels = torch.tensor(private.labels[ids])
    for network, found in zip(networks, (learned.private, learned.messenger), strict=True):
        rng = generator(SEED, Purpose.PEER_BATCHES, 1, 0)
        train(network, private, ids, labels, cross_entropy, rng, **numbers)
        for name, value in parameters_of(network).items():
            np.testing.assert_array_equal(found[name], value)


def test_answers_without_folding_are_averaged_too() -> None:
    one, _ = run("inline", 1, combiner=mean_of_logits)
    other, _ = run("inline", 1, combiner=mean_of_logits, weight_cap=0.99)
    # A cap that never binds changes how answers travel, and nothing else but rounding.
    for name, value in one.parameters.items():
        np.testing.assert_allclose(value, other.parameters[name], atol=1e-4)
