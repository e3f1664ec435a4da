"""Giving a function what it takes of what there is, by the names of its arguments."""

import inspect
from collections.abc import Callable
from typing import Any


def takes(function: Callable[..., Any], name: str) -> bool:
    """Tell whether a function has an argument of this name, or takes any."""
    parameters = inspect.signature(function).parameters
    open_ended = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return open_ended or name in parameters
