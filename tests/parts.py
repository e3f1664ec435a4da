"""Strategies put together of parts, with all numbers given beside each other."""

from functools import partial
from typing import Any

from clients.models.discriminator import DiscriminatorRecipe
from strategies.aggregation.ensemble import EnsembleRule
from strategies.argument_injection import completed
from strategies.teaching.proxy_split import ProxySplit


def whole(kind: Any, given: dict[str, Any]) -> Any:
    """Complete a strategy; what a part of it takes may be given beside it, as a config's rules."""
    return completed(partial(kind, **(loose() | given)), {})


def loose() -> dict[str, Any]:
    """Parts of a strategy in which nothing is bound."""
    return {"ensemble": partial(EnsembleRule), "proxy_split": partial(ProxySplit)}


def recipe_for(scorer: Any) -> DiscriminatorRecipe:
    """Return the discriminators that a scorer goes with; any if it does not say."""
    rule = scorer.func if isinstance(scorer, partial) else scorer
    balanced, _ = getattr(rule, "for_discriminators", (None, ""))
    return DiscriminatorRecipe(balanced=bool(balanced))
