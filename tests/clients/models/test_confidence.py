"""Confidence of clients: known answers by hand, what is left as it was, and what is refused."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clients.models.confidence import (
    energy,
    mc_dropout,
    nearest_own,
    require_confidence,
    share_below,
)
from clients.training.taps import evaluating


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class Coin(nn.Module):
    """Answers (x, -x) times what its dropout leaves of 1."""

    def __init__(self, drop: nn.Module | None = None) -> None:
        super().__init__()
        self.drop = drop or nn.Dropout(0.5)
        self.one = nn.Parameter(torch.ones(1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.drop(inputs * self.one) * torch.tensor([1.0, -1.0])


# --- MC dropout ---


def test_the_spread_of_a_coin_is_its_own() -> None:
    """A unit of 3 is dropped or doubled: p is 1/2 or sigmoid(12), apart by their difference / 4."""
    inputs = torch.tensor([[3.0], [0.0], [3.0]])
    network = Coin().eval()
    found = mc_dropout(network, inputs, rng=rng(), draws=4000)
    apart = torch.tensor(12.0).sigmoid() - 0.5
    assert found[1] == 1  # of 0 nothing is left either way
    # Half of the draws on each side of the mean: |p_t - p| / 2 summed over both classes.
    np.testing.assert_allclose(found[[0, 2]], 1 - apart / 2, atol=0.01)
    assert found[0] != found[2]  # units are dropped for each input by itself


def test_a_layer_that_drops_everything_leaves_zeros() -> None:
    found = mc_dropout(Coin(nn.Dropout(1.0)).eval(), torch.randn(4, 1), rng=rng())
    assert found.tolist() == [1] * 4


def test_draws_are_of_the_generator_and_of_no_other() -> None:
    network, inputs = Coin().eval(), torch.randn(20, 1)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, same, other = (mc_dropout(network, inputs, rng=rng(s), draws=3) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not network.drop.training
    assert not network.drop._forward_hooks
    assert (network(inputs) == network(inputs)).all()


def test_a_network_without_dropout_gets_one_before_each_layer() -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    inputs = torch.randn(50, 4)
    little, much = (mc_dropout(network, inputs, rng=rng(), rate=each) for each in (0.01, 0.5))
    assert ((little > 0) & (little <= 1)).all()
    assert little.mean() > much.mean() + 0.05
    assert not any(layer._forward_pre_hooks for layer in network)


def test_a_dropout_that_drops_nothing_is_none() -> None:
    """All draws were alike, and everybody was sure of everything."""
    layers = nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 3)
    network, inputs = nn.Sequential(*layers).eval(), torch.randn(50, 4)
    assert mc_dropout(network, inputs, rng=rng(), rate=0.5).mean() < 0.98


def test_whole_channels_are_dropped_where_the_layer_does_so() -> None:
    seen = []

    class Channels(Coin):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            maps = self.drop(inputs)
            seen.append(maps)
            return maps.flatten(1)

    mc_dropout(Channels(nn.Dropout2d(0.5)).eval(), torch.ones(6, 3, 2, 2), rng=rng(), draws=2)
    maps = seen[0].flatten(2)
    assert (maps == maps[..., :1]).all()
    assert set(maps.unique().tolist()) == {0.0, 2.0}


# --- energy and neighbours ---


def test_energies_are_squashed_by_those_of_ones_own() -> None:
    network = nn.Identity()
    own = torch.tensor([[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]])  # energies -log 2 - 0, 2, 4
    inputs = torch.tensor([[-9.0, -9.0], [1.0, 1.0], [2.0, 2.0], [9.0, 9.0]])
    found = energy(network, inputs, own=own)
    assert found.tolist() == [1 / 4, 2 / 4, 3 / 4, 1]
    flat, peaked = torch.tensor([[1.0, 1.0]]), torch.tensor([[1.6, 0.0]])
    for temperature, more in ((1.0, False), (10.0, True)):  # 1.69, 1.78; 7.93, 7.76
        both = energy(network, flat, own=peaked, temperature=temperature)
        assert (both.item() == 1) is more
    dense = torch.zeros(1, 2, 3, 3)  # of pixels their mean
    assert energy(network, dense, own=dense).tolist() == [1]


def test_shares_below_are_even_for_examples_of_ones_own_kind() -> None:
    own, others = torch.randn(999), torch.randn(20_000)
    found = share_below(others, own)
    assert found.mean() == pytest.approx(0.5, abs=0.05)
    assert float(((found >= 0.25) & (found < 0.75)).double().mean()) == pytest.approx(0.5, abs=0.05)
    assert share_below(torch.tensor([-9.0, 9.0]), own).tolist() == [1 / 1000, 1]
    assert share_below(torch.tensor([1.0]), torch.tensor([])).tolist() == [1]
    assert share_below(torch.tensor([torch.nan]), own).tolist() == [1 / 1000]  # not the largest


def test_the_nearest_are_by_angle_and_one_is_not_ones_own_neighbour() -> None:
    network = nn.Linear(2, 2).eval()
    degrees = torch.tensor([0.0, 10, 20, 40]) * torch.pi / 180
    own = torch.stack([degrees.cos(), degrees.sin()], 1) * torch.tensor([[1.0], [5], [2], [3]])
    # Nearest other: 10, 10, 10, 20 degrees away.
    angles = torch.tensor([0.01745, torch.pi / 2, 0.45])  # 1, 90, 25.8 degrees
    inputs = torch.stack([angles.cos(), angles.sin()], 1) * 7
    found = nearest_own(network, inputs, own=own, neighbours=1)
    assert found.tolist() == [1, 1 / 5, 1]
    second = nearest_own(network, inputs, own=own, neighbours=2)  # 20, 10, 20, 30: 9, 70, 14.2
    assert second.tolist() == [1, 1 / 5, 4 / 5]
    assert nearest_own(network, inputs, own=own[:1]).tolist() == [1, 1, 1]
    assert nearest_own(network, inputs, own=own, neighbours=99).shape == (3,)


# --- what is refused ---


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(mc_dropout, rng=rng(), draws=1), "draws=1, rate=0.1: expected >= 2"),
        (partial(mc_dropout, rng=rng(), rate=1.0), "rate=1.0"),
        (partial(energy, own=torch.zeros(1, 2), temperature=0), "temperature=0: expected > 0"),
        (partial(nearest_own, own=torch.zeros(1, 2), neighbours=0), "neighbours=0: expected >= 1"),
    ],
)
def test_numbers_out_of_range_are_refused_by_key(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"strategy\.discriminator\..*{message}"):
        call(nn.Linear(2, 2), torch.zeros(3, 2))


def test_what_nobody_gives_is_refused_by_name() -> None:
    def needy(network: Any, inputs: Any, *, own: Any, epsilon: float) -> Any: ...

    with pytest.raises(ValueError, match=r"discriminator\.epsilon is not set.*own, negatives, rng"):
        require_confidence(needy)
    require_confidence(partial(needy, epsilon=1.0))
    for none in (7, nn.Linear):
        with pytest.raises(ValueError, match="expected a DiscriminatorRecipe or a function"):
            require_confidence(none)  # type: ignore[arg-type]


def test_modes_of_layers_come_back() -> None:
    network = Coin().train()
    with evaluating(network):
        mc_dropout(network, torch.ones(2, 1), rng=rng())
    assert network.drop.training
