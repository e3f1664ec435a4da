"""Giving a function what it takes of what there is, by the names of its arguments."""

import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

PLACED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def declared(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return a function's arguments, each annotation evaluated where it can be.

    Those that name what is imported for type checkers only stay text, and say nothing.
    """
    try:
        return dict(inspect.signature(function, eval_str=True).parameters)
    except Exception:  # anyone's annotations
        known = vars(sys.modules[function.__module__])
        found = inspect.signature(function).parameters
        return {n: each.replace(annotation=_seen(each.annotation, known)) for n, each in
                found.items()}  # fmt: skip


def _seen(annotation: Any, known: dict[str, Any]) -> Any:
    try:
        return eval(annotation, known) if isinstance(annotation, str) else annotation
    except Exception:  # anyone's annotations
        return annotation


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
    """Make what a function names of what is offered.

    Args:
        function: Anyone's, or a partial; what is bound in it is not made. `**numbers` names
            nothing.
        offered: What makes each, by the name of the argument.

    Returns:
        Keyword arguments for it.
    """
    free = _free(function)
    return {name: make() for name, make in offered.items() if name in free}


def unoffered(function: Callable[..., Any], places: int, offered: Collection[str]) -> str | None:
    """Name the first argument that nobody gives a function.

    Args:
        function: Anyone's, or a partial.
        places: How many arguments it is called with by position.
        offered: Names of those that it is given if it names them.

    Returns:
        One without a default, beyond the first `places`, that is neither bound nor offered; None
        if there is none.
    """
    for name, each in inspect.signature(function).parameters.items():
        if each.kind in PLACED and places > 0:
            places -= 1
            continue
        given = each.kind in NAMED and name in offered
        if each.kind in (*PLACED, *NAMED) and each.default is each.empty and not given:
            return name
    return None


def require_given(
    function: Callable[..., Any], places: int, offered: Collection[str], key: str
) -> None:
    """Refuse a function that needs what nobody gives it.

    Args:
        function: As in `unoffered`, like the two that follow.
        places: As there.
        offered: As there.
        key: Where it stands in the config.

    Raises:
        ValueError: Names the key of the first such argument, and what there is.
    """
    if (name := unoffered(function, places, offered)) is not None:
        given = f", or one of what is given by name: {', '.join(offered)}" if offered else ""
        raise ValueError(
            f"{key}.{name} is not set, and {key} needs it: expected a value of yours{given}"
        )


def _free(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the arguments that can be given by name and are not bound."""
    bound = function.keywords if isinstance(function, partial) else {}
    parameters = inspect.signature(function).parameters
    return {n: each for n, each in parameters.items() if each.kind in NAMED and n not in bound}
