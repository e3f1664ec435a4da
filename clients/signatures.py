"""Giving a function what it takes of what there is, by the names of its arguments."""

import inspect
from collections.abc import Callable, Container, Mapping
from typing import Any


def takes(function: Callable[..., Any], name: str) -> bool:
    """Tell whether a function has an argument of this name, or takes any."""
    parameters = inspect.signature(function).parameters
    open_ended = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return open_ended or name in parameters


def named_of(
    function: Callable[..., Any], offered: Mapping[str, Callable[[], Any]]
) -> dict[str, Any]:
    """Make what a function names of what is offered, and nothing else; what is bound stays.

    Args:
        function: Or a partial of one.
        offered: What makes each argument, by its name.

    Returns:
        Keyword arguments.
    """
    bound = getattr(function, "keywords", {})
    named = inspect.signature(function).parameters.keys() - bound.keys()
    return {name: make() for name, make in offered.items() if name in named}


def unoffered(function: Callable[..., Any], places: int, offered: Container[str]) -> str | None:
    """Name the first argument that a function needs and nobody gives it; None if there is none.

    Args:
        function: Or a partial of one; what is bound in it is given.
        places: How many arguments it gets by their places.
        offered: Names of those that it gets if it names them.

    Returns:
        The name.
    """
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for each in [*inspect.signature(function).parameters.values()][places:]:
        needed = each.default is each.empty and each.kind not in several
        if needed and each.name not in offered:
            return each.name
    return None
