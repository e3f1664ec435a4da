"""Variants: networks that are an architecture's but for their shape, told apart by their names."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from clients.models.factory import ModelFunction

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

MOST = 32
"""Variants that stay in a process; there may be as many as there are clients."""


class Variant(str):
    """Name of a network that is an architecture's but for its shape.

    Attributes:
        model: Its model function.
    """

    model: ModelFunction


def keep_last(there: dict[str, Any], name: str) -> None:
    """Note that a network is in use; of more than MOST variants forget that of longest ago.

    Args:
        there: By the name of the network; changed.
        name: Of one that is there; if it is no variant, nothing is done.
    """
    if not isinstance(name, Variant):
        return
    there[name] = there.pop(name)
    variants = [each for each in there if isinstance(each, Variant)]
    if len(variants) > MOST:
        del there[variants[0]]


def in_turn(
    names: Sequence[str],
    items: Sequence[Item],
    run: Callable[[str, list[Item]], Iterator[Outcome]],
) -> Iterator[Outcome]:
    """Run what is of one network together, whatever lies between, and yield as it was given.

    Args:
        names: Of each item's network.
        items: As many.
        run: (name, its items) -> an outcome for each.

    Yields:
        For each item in turn what came of it.
    """
    of: dict[str, list[Item]] = {}
    for name, item in zip(names, items, strict=True):
        of.setdefault(name, []).append(item)
    running = {name: run(name, its) for name, its in of.items()}
    for name in names:
        yield next(running[name])
