"""Whether an object offers what a protocol asks for, or only has something of that name."""

import inspect
from typing import Any


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
