"""Giving a function what it names of what there is, by the names of its arguments."""

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def takes(function: Callable[..., Any], name: str) -> bool:
    """Tell whether a function has an argument of this name, or takes any."""
    parameters = inspect.signature(function).parameters
    open_ended = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return open_ended or name in parameters


def names(function: Callable[..., Any], name: str) -> bool:
    """Tell whether a function has an argument of this name that is not bound."""
    return name in _free(function)


def needs(function: Callable[..., Any], name: str) -> bool:
    """Tell whether it has one that is not bound and has no default."""
    found = _free(function).get(name)
    return found is not None and found.default is found.empty


def named_of(
    function: Callable[..., Any], offered: Mapping[str, Callable[[], Any]]
) -> dict[str, Any]:
    """Make what a function names of what it is offered.

    Args:
        function: Any, or a partial of it: what is bound stays. `**numbers` names nothing.
        offered: What makes each thing, by name; called only where it is named.

    Returns:
        The things, by name.
    """
    free = _free(function)
    return {name: make() for name, make in offered.items() if name in free}


def unoffered(function: Callable[..., Any], places: int, offered: Collection[str]) -> str | None:
    """Look for an argument that a function needs and nobody gives it.

    Args:
        function: Any, or a partial of it.
        places: How many arguments it is given by position.
        offered: Names of what it is given by name.

    Returns:
        The first argument without a default that is neither bound nor offered; None if all is.
    """
    free = list(_free(function).values())[places:]
    needed = [each.name for each in free if each.default is each.empty]
    return next((name for name in needed if name not in offered), None)


def _free(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the arguments that can be given by name and are not bound."""
    bound = function.keywords if isinstance(function, partial) else {}
    parameters = inspect.signature(function).parameters
    return {n: p for n, p in parameters.items() if p.kind in BY_NAME and n not in bound}
