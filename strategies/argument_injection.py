"""Giving a strategy what it wants of what there is, by the names of its arguments."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

NAMED = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


def wants(strategy: Any, name: str) -> bool:
    """Tell whether a strategy is not complete and has an argument of this name.

    Where it takes any (`**others`), it wants what its base class has, to which it hands them on,
    and what a strategy wants that is one of its arguments.
    """
    return isinstance(strategy, partial) and name in _named(strategy)[0]


def completed(
    strategy: partial[Any],
    known: Mapping[str, Any],
    made: Mapping[str, Callable[[], Any]] | None = None,
) -> Any:
    """Complete a strategy.

    Args:
        strategy: One with some of its arguments bound.
        known: What there is, by name; one that takes any, as far as its classes go, gets it all.
        made: What makes more, called only where it is wanted: some import much, or exist in some
            federations only.

    Returns:
        The strategy.
    """
    names, any_name = _named(strategy)
    given = {name: value for name, value in known.items() if any_name or name in names}
    given |= {name: make() for name, make in (made or {}).items() if name in names}
    return strategy(**given)


def _named(strategy: partial[Any]) -> tuple[set[str], bool]:
    """Return the names of its arguments, and whether it takes any beside them."""
    classes = strategy.func.__mro__ if isinstance(strategy.func, type) else ()
    makers = [vars(each)["__init__"] for each in classes if "__init__" in vars(each)]
    names = set(strategy.keywords)
    for function in makers or [strategy.func]:
        parameters = inspect.signature(function).parameters.values()
        names |= {each.name for each in parameters if each.kind in NAMED}
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            return names, False
    for nested in strategy.keywords.values():
        if isinstance(nested, partial) and hasattr(nested.func, "configure_train"):
            names |= _named(nested)[0]
    return names, True


def require_topology(strategy: Any, there: bool, availability: Mapping[str, Any]) -> None:
    """Refuse a graph that nobody looks at, and none where one is needed.

    Args:
        strategy: Complete, or with some of its arguments bound.
        there: Whether the config has a topology.
        availability: Of the config.

    Raises:
        ValueError: Says what to set.
    """
    if there and not wants(strategy, "mixing"):
        raise ValueError("topology: this strategy has a server; strategy=gossip has none")
    faults = [key for key, value in availability.items() if key.endswith("probability") and value]
    if faults and not wants(strategy, "availability"):
        raise ValueError(
            f"availability.{faults[0]}: this strategy has a server, which looks at none"
        )
    if not there and wants(strategy, "availability"):
        raise ValueError("topology=none: peers without a server need one, such as topology=ring")
