"""Giving a strategy what it wants of what there is, by the names of its arguments."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from clients.population.clients import SimulatedClients

NAMED = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


def wants(strategy: Any, name: str) -> bool:
    """Tell whether a strategy is not complete and has an argument of this name.

    Where it takes any (`**others`), it wants what its base class has, to which it hands them on,
    and what a strategy wants that is one of its arguments.
    """
    return isinstance(strategy, partial) and name in _named(strategy)[0]


def offered(clients: SimulatedClients, student: nn.Module, rounds: int) -> dict[str, Any]:
    """List what there is of any federation for a strategy to want.

    Args:
        clients: All of the federation's.
        student: The global student before the first round.
        rounds: R.

    Returns:
        By the names that a strategy's arguments have.
    """
    return {
        "student": student,
        "student_model": clients.student,
        "models": clients.models,
        "architectures": clients.architectures,
        "proxy": clients.splits.proxy,
        "test": clients.splits.test,
        "seed": clients.seed,
        "rounds": rounds,
        "messenger": clients.messenger,
        "num_clients": len(clients.architectures),
    }


def completed(
    strategy: Any,
    known: Mapping[str, Any],
    made: Mapping[str, Callable[[], Any]] | None = None,
) -> Any:
    """Complete a strategy.

    Args:
        strategy: One with some of its arguments bound; what is complete stays as it is.
        known: What there is, by name; one that takes any, as far as its classes go, gets it all.
        made: What makes more, called only where it is wanted: some import much, or exist in some
            federations only.

    Returns:
        The strategy.
    """
    if not isinstance(strategy, partial):
        return strategy
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
