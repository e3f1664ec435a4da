"""Giving a strategy what it wants of what there is, by the names of its arguments."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from clients.arguments import takes


def wants(strategy: Any, name: str) -> bool:
    """Tell whether a strategy is not complete and takes an argument of this name."""
    return isinstance(strategy, partial) and takes(strategy, name)


def completed(
    strategy: partial[Any],
    known: Mapping[str, Any],
    made: Mapping[str, Callable[[], Any]] | None = None,
) -> Any:
    """Complete a strategy.

    Args:
        strategy: One with some of its arguments bound.
        known: What there is, by name.
        made: What makes more, called only where it is wanted: some import much, or exist in some
            federations only.

    Returns:
        The strategy.
    """
    given = {name: value for name, value in known.items() if wants(strategy, name)}
    given |= {name: make() for name, make in (made or {}).items() if wants(strategy, name)}
    return strategy(**given)


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
