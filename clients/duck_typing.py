"""What an object offers: a protocol's methods, or an attribute, its own or of what it wraps."""

import inspect
from typing import Any

from flwr.serverapp.strategy import Strategy


def offers(thing: object, protocol: Any) -> bool:
    """Tell whether an object has a protocol's methods, callable with as many arguments.

    `isinstance` looks at names alone: a strategy's own `self.models = {}` would be called.

    Args:
        thing: Anyone's object.
        protocol: A protocol of methods.

    Returns:
        Whether each can be called as the protocol has it.
    """
    return all(
        _callable_like(getattr(thing, name, None), method)
        for name, method in vars(protocol).items()
        if inspect.isfunction(method) and not name.startswith("_")
    )


def told(strategy: Strategy, name: str) -> Any:
    """Return what a strategy, or one inside it, says of itself.

    Args:
        strategy: Any.
        name: Of its attribute.

    Returns:
        The attribute; None if there is none.
    """
    inner = getattr(strategy, "strategy", None)
    found = getattr(strategy, name, None)
    return told(inner, name) if found is None and isinstance(inner, Strategy) else found


def _callable_like(method: Any, asked: Any) -> bool:
    if not callable(method):
        return False
    try:
        taken = inspect.signature(method)
    except (TypeError, ValueError):  # of a builtin: nobody can tell
        return True
    own = list(inspect.signature(asked).parameters)[1:]  # without `self`
    try:
        taken.bind(*own)
    except TypeError:
        return False
    return True
