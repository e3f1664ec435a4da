"""Giving a strategy what it wants of what there is, by the names of its arguments."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any


def wants(strategy: Any, name: str) -> bool:
    """Tell whether a strategy is not complete and takes an argument of this name."""
    if not isinstance(strategy, partial):
        return False
    parameters = inspect.signature(strategy).parameters
    open_ended = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return open_ended or name in parameters


def completed(strategy: partial[Any], offered: Mapping[str, Callable[[], Any]]) -> Any:
    """Complete a strategy.

    Args:
        strategy: One with some of its arguments bound.
        offered: What makes each thing that there is, called only where it is wanted: some import
            much, or exist in some federations only.

    Returns:
        The strategy.
    """
    given = {name: make() for name, make in offered.items() if wants(strategy, name)}
    return strategy(**given)


def require_topology(strategy: Any, there: bool) -> None:
    """Refuse a graph that nobody looks at, and none where one is needed.

    Args:
        strategy: Complete, or with some of its arguments bound.
        there: Whether the config has a topology.

    Raises:
        ValueError: Says what to set.
    """
    if there and not wants(strategy, "mixing"):
        raise ValueError("topology: this strategy has a server; strategy=gossip has none")
    if not there and wants(strategy, "availability"):
        raise ValueError("topology=none: peers without a server need one, such as topology=ring")
