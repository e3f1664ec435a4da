"""Scorers and discriminators that do not belong together are refused before data is loaded."""

from functools import partial

import pytest
from omegaconf import OmegaConf

from clients.models.discriminator import DiscriminatorRecipe
from conf.building import pairs
from strategies.aggregation import scorers
from strategies.aggregation.scorer_compatibility import for_discriminators, require_discriminator
from tests.federations import distillation, tiny_clients
from tests.places import CONF

PLAIN, BALANCED = DiscriminatorRecipe(), DiscriminatorRecipe("pixels", balanced=True)
GOES = {
    "own_probability": (False, True, True),
    "own_odds": (False, True, False),
    "num_examples_own_odds": (False, False, True),
    "own_selection": (False, False, True),
    "unambiguous_selection": (False, False, True),
}
"""With no discriminator, plain ones, balanced ones; every other scorer goes with all three."""
SHIPPED = [p.stem for p in (CONF / "strategy" / "scorer").glob("*.yaml")]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_scorer_with_every_discriminator(name: str) -> None:
    assert set(GOES) < set(SHIPPED)
    for recipe, goes in zip((None, PLAIN, BALANCED), GOES.get(name, (True,) * 3), strict=True):
        for scorer in (getattr(scorers, name), partial(getattr(scorers, name))):
            if goes:
                require_discriminator(scorer, recipe, "strategy")
            else:
                with pytest.raises(ValueError, match=rf"strategy\.scorer={name} .*discriminator"):
                    require_discriminator(scorer, recipe, "strategy")


def test_n_k_that_would_count_twice_is_refused_with_both_keys_and_the_cure() -> None:
    with pytest.raises(
        ValueError,
        match=r"strategy\.scorer=num_examples_own_odds goes with "
        r"strategy\.discriminator\.balanced=true, found false: .* take scorer own_odds",
    ):
        distillation(
            tiny_clients(),
            scorer=scorers.num_examples_own_odds,
            discriminator=DiscriminatorRecipe(),
        )


def test_a_scorer_of_ones_own_may_say_nothing_or_something() -> None:
    def mine(teachers: object) -> object:
        return teachers

    for recipe in (None, PLAIN, BALANCED):
        require_discriminator(mine, recipe, "strategy")
    said = for_discriminators(True, "because")(mine)
    assert said is mine
    with pytest.raises(ValueError, match=r"mine goes with .*balanced=true, found false: because"):
        require_discriminator(partial(said), PLAIN, "strategy")


def test_pairs_are_found_wherever_a_strategy_has_them() -> None:
    rule = {"_target_": "strategies.aggregation.scorers.own_odds", "_partial_": True}
    recipe = {"_target_": "clients.models.discriminator.DiscriminatorRecipe", "balanced": True}
    inner = {"scorer": rule, "discriminator": recipe}
    config = OmegaConf.create({"first": {"order": "x"}, "second": inner, "scorer": None})
    ((key, scorer, found),) = pairs(config)
    assert key == "strategy.second"
    with pytest.raises(ValueError, match=r"strategy\.second\.discriminator\.balanced=false"):
        require_discriminator(scorer, found, key)
