"""Strategies put together of parts, with all numbers given beside each other."""

from functools import partial
from typing import Any

from clients.models.discriminator import DiscriminatorRecipe
from strategies.aggregation.ensemble import EnsembleRule
from strategies.argument_injection import completed, wants
from strategies.decentralised.delivery import Neighbours
from strategies.teaching.proxy_split import ProxySplit
from strategies.teaching.student_among_peers import GroupRecipe
from strategies.teaching.teachers import Teachers


def whole(kind: Any, given: dict[str, Any]) -> Any:
    """Complete a strategy; what a part of it takes may be given beside it, as a config's rules."""
    return completed(partial(kind, **(loose(kind) | given)), {})


def loose(kind: Any) -> dict[str, Any]:
    """Return a strategy's parts, nothing bound in them."""
    parts = {"ensemble": EnsembleRule, "proxy_split": ProxySplit, "teachers": Teachers}
    parts |= {"teaching": GroupRecipe, "neighbours": Neighbours}
    bare = {name: partial(part) for name, part in parts.items()}
    return {name: part for name, part in bare.items() if wants(partial(kind, **bare), name)}


def recipe_for(scorer: Any) -> DiscriminatorRecipe:
    """Return the discriminators that a scorer goes with; any if it does not say."""
    rule = scorer.func if isinstance(scorer, partial) else scorer
    balanced, _ = getattr(rule, "for_discriminators", (None, ""))
    return DiscriminatorRecipe(balanced=bool(balanced))
