"""Discriminators are fitted against the negatives."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from torch import nn

from clients.data import classification, normalised
from clients.messages.round_views import RoundView
from clients.models.discriminator import DiscriminatorRecipe, fit_discriminator, own_probability
from clients.models.factory import build
from clients.population.clients import SimulatedClients
from clients.seeding import Purpose, generator
from clients.training.evaluation import predict_with_features
from strategies.aggregation.scorers import own_odds
from tests.federations import SEED, distillation, inline, run_ours, simulated, tiny_clients, trainer


@pytest.mark.parametrize("inputs", ["pixels", "features"])
def test_discriminators_are_fitted_against_the_negatives_and_not_what_is_distilled(
    inputs: str,
) -> None:
    # docs/dlad.md: who is fitted against the examples that it weighs has learnt them by heart.
    clients, views = tiny_clients(2, train=partial(trainer(), epochs=0)), list[RoundView]()
    recipe = DiscriminatorRecipe(inputs, l2=0.01)
    strategy = distillation(clients, scorer=own_odds, discriminator=recipe, report=views.append)
    run_ours(inline(simulated(clients)), clients, strategy)
    private, proxy = clients.splits.private, clients.splits.proxy
    ids, network = strategy.split.distilled_ids, networks_of(clients)

    def seen(client: int, dataset: Any, which: Any) -> Any:
        if inputs == "pixels":
            return normalised(dataset, which).reshape(len(which), -1)
        return predict_with_features(network[client], dataset, which)[1].numpy()

    for client, own in enumerate(clients.partitions):
        probs = []
        for against in (strategy.split.negative_ids, ids):
            told = seen(client, private, own), seen(client, proxy, against)
            fitted = fit_discriminator(*told, balanced=False, l2=0.01)
            probs.append(own_probability(fitted, seen(client, proxy, ids)))
        found = views[0].teachers.own_probs
        assert found is not None
        np.testing.assert_allclose(found[client].numpy(), probs[0], rtol=0, atol=1e-6)
        assert np.abs(probs[1] - probs[0]).max() > 0.1


def networks_of(clients: SimulatedClients) -> list[nn.Module]:
    """Build each client's network as it is before it trains."""
    return [
        build(
            clients.models[name],
            classification((1, 4, 4), 4),
            generator(SEED, Purpose.INITIALISE, 0, client),
        )
        for client, name in enumerate(clients.architectures)
    ]
