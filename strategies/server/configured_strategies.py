"""Which strategies a config's strategy is: one, or a sequence of stages, complete or not."""

from collections.abc import Iterator
from functools import partial
from typing import Any


def kinds(strategy: Any) -> Iterator[Any]:
    """Yield the class of a strategy, and of those that it is a sequence of."""
    if not isinstance(strategy, partial):
        yield type(strategy)
    yield from (each.func for each in partials(strategy))


def partials(strategy: Any) -> Iterator[partial[Any]]:
    """Yield a strategy and those that it is a sequence of, where they are not complete."""
    if isinstance(strategy, partial):
        yield strategy
        for each in strategy.keywords.values():
            if isinstance(each, partial) and hasattr(each.func, "configure_train"):
                yield each
