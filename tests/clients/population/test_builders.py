"""Builders that know for whom they build: the tier of an architecture, the profile of a client."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict
from torch import nn

from clients.handlers.compute_cost import local_training
from clients.models import logistic_regression, mlp
from clients.partition import iid
from clients.population.architectures import Architectures
from clients.population.builders import MOST_PROFILES, one_per_profile
from clients.population.clients import SimulatedClients
from clients.population.drawing import draw_clients
from clients.population.plugin_arguments import require_offered
from clients.population.profiles import Profile, Profiles, two_speeds
from clients.population.rehearsal import require_like
from tests.federations import (
    SEED,
    distillation,
    inline,
    run_ours,
    simulated,
    tiny_clients,
    trainer,
)
from tests.timed import PHONE, drawn, profiles


def of_tier(image_shape: Any, num_classes: int, *, tier: int | str) -> nn.Module:
    return mlp(image_shape, num_classes, hidden=(int(tier),))


def of_profile(image_shape: Any, num_classes: int, *, profile: Profile) -> nn.Module:
    """Build a network with a hidden unit for each 100 multiplications a second."""
    return mlp(image_shape, num_classes, hidden=(int(profile.multiplications_per_s) // 100,))


def population(kinds: dict[str, Any], **changes: Any) -> SimulatedClients:
    about: dict[str, Any] = {"num_clients": 6, "architectures": kinds, "training": trainer()}
    about |= {"condition": None, "student": logistic_regression, **changes}
    return draw_clients(tiny_clients().splits, SEED, iid, **about)


def widths(clients: SimulatedClients) -> dict[str, int]:
    """Count the hidden units of each architecture's network."""
    networks = clients.place("cpu").networks
    return {name: len(networks.of(name).features[1].weight) for name in clients.models}  # type: ignore[index,union-attr]


# --- tiers ---


def test_a_builder_is_told_the_tier_of_its_architecture() -> None:
    kinds = {
        "small": {"share": 1, "model": of_tier, "tier": 3},
        "large": {"share": 1, "model": of_tier, "tier": "9"},
    }
    found = population(kinds)
    assert widths(found) == {"small": 3, "large": 9}
    # each weight once: of 16 pixels, h hidden units, 4 classes (17 h + 4 (h + 1)), and 1
    assert (found.forward["small"], found.forward["large"]) == (51 + 16 + 1, 153 + 40 + 1)


# --- profiles ---


def test_an_architecture_becomes_one_for_each_profile_of_its_clients() -> None:
    speeds = profiles(300.0, 100.0, 100.0, 300.0, 200.0)
    kinds = Architectures(("plain", "mine", "nobodys"), np.array([0, 1, 1, 1, 0], dtype=np.uint8))
    models = {"plain": mlp, "mine": of_profile, "nobodys": of_profile}
    found, named = one_per_profile(models, kinds, lambda: speeds)
    assert list(found) == ["plain", "mine@0", "mine@1"]
    assert list(named) == ["plain", "mine@0", "mine@0", "mine@1", "plain"]
    told: Any = found["mine@1"]
    assert told.keywords["profile"] == (300.0, *(speeds.table[3, 1:].tolist()))
    assert told.keywords["profile"].multiplications_per_s == 300.0


def test_nothing_is_drawn_and_nothing_changes_where_no_builder_names_a_profile() -> None:
    kinds = Architectures(("a", "b"), np.array([0, 1, 1], dtype=np.uint8))
    models = {"a": mlp, "b": partial(of_profile, profile=None)}
    found, named = one_per_profile(models, kinds, lambda: pytest.fail("drawn"))
    assert (found, named) == (models, kinds)


def test_more_profiles_than_networks_that_can_be_kept_are_refused() -> None:
    number = MOST_PROFILES + 1
    speeds = Profiles(*(np.arange(1.0, number + 1) for _ in range(4)))
    kinds = Architectures(("mine",), np.zeros(number, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"clients\.architectures\.mine: .* there are 65 of them"):
        one_per_profile({"mine": of_profile}, kinds, lambda: speeds)


def test_a_builder_of_profiles_wants_some_to_be_drawn() -> None:
    about = {"architectures": {"mine": {"share": 1, "model": of_profile}}, "condition": None}
    with pytest.raises(ValueError, match=r"architectures\.mine\.model: of_profile takes 'profile'"):
        require_offered(iid, mlp, profile=None, **about)
    require_offered(iid, mlp, profile=drawn(profiles(1.0)), **about)


def test_what_goes_by_architecture_goes_by_profile() -> None:
    """Counts of multiplications, groups, the check of those who average, and the run."""
    rule = partial(two_speeds, slow_share=0.5, slowdown=2, **PHONE)
    clients = population({"mine": {"share": 1, "model": of_profile}}, profile=rule)
    assert clients.profiles is not None
    speeds = clients.profiles.multiplications_per_s
    assert widths(clients) == {"mine@0": 5, "mine@1": 10}
    assert [clients.architectures[k] for k in range(6)] == [f"mine@{int(v > 700)}" for v in speeds]
    works = [local_training(clients, k, RecordDict()) for k in range(6)]
    assert works == [2 * 3 * 20 * (17 * v / 100 + 4 * (v / 100 + 1) + 1) for v in speeds]
    with pytest.raises(ValueError, match="Architecture 'mine@1': "):
        require_like(partial(mlp, hidden=(5,)), clients.models, clients.splits.private, "FedAvg")
    run = run_ours(inline(simulated(clients)), clients, distillation(clients))
    assert not [each for each in run.grid.exchanges if each.failure]
