"""Giving a strategy what it wants of what there is, by the names of its arguments.

So it is with a part of a strategy: an object that it wants and of which it is given a partial. A
part gets what stands beside it, and what there is for the strategy; what is bound in it stays.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from types import UnionType
from typing import Any, get_args

from torch import nn

from clients.population.clients import SimulatedClients
from clients.signatures import declared

NAMED = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


def wants(strategy: Any, name: str) -> bool:
    """Tell whether a strategy is not complete and has an argument of this name.

    Where it takes any (`**others`), it wants what its base class has, to which it hands them on,
    and what a strategy wants that is one of its arguments. It wants what its parts want.
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
        "tested": clients.splits.tested,
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

    Raises:
        TypeError: Something is bound that neither it nor a part of it takes.
    """
    if not isinstance(strategy, partial):
        return strategy
    names, any_name = _named(strategy)
    if not any_name and (odd := strategy.keywords.keys() - names):
        raise TypeError(f"{strategy.func.__name__} takes no {', '.join(sorted(odd))}")
    given = {name: value for name, value in known.items() if any_name or name in names}
    given |= {name: make() for name, make in (made or {}).items() if name in names}
    return _complete(partial(strategy.func, *strategy.args), strategy.keywords | given)


def _complete(call: partial[Any], beside: Mapping[str, Any]) -> Any:
    """Call it with what it names of what stands beside it, its parts completed likewise."""
    parameters, any_name = _parameters(call.func)
    there = {**beside, **call.keywords}
    arguments = {name: there[name] for name in there if any_name or name in parameters}
    arguments |= {name: _complete(part, beside) for name, part in _parts(parameters, arguments)}
    return call.func(*call.args, **arguments)


def _named(strategy: partial[Any]) -> tuple[set[str], bool]:
    """Return the names of its arguments and its parts', and whether it takes any beside them."""
    parameters, any_name = _parameters(strategy.func)
    names = set(parameters) | _of_parts(parameters, strategy.keywords)
    if any_name:
        names |= strategy.keywords.keys()
        for nested in strategy.keywords.values():
            if isinstance(nested, partial) and hasattr(nested.func, "configure_train"):
                names |= _named(nested)[0]
    return names, any_name


def _of_parts(parameters: Mapping[str, Any], beside: Mapping[str, Any]) -> set[str]:
    """Return the names of what parts want, and parts of parts."""
    names: set[str] = set()
    for _, part in _parts(parameters, beside):
        inner, _ = _parameters(part.func)
        names |= inner.keys() - part.keywords.keys() | _of_parts(inner, {**beside, **part.keywords})
    return names


def _parts(
    parameters: Mapping[str, Any], beside: Mapping[str, Any]
) -> Iterator[tuple[str, partial[Any]]]:
    """Find partials of a class where an object of that class is wanted, not a way to make it."""
    for name, parameter in parameters.items():
        part = beside.get(name)
        if isinstance(part, partial) and wants_object(parameter.annotation, part.func):
            yield name, part


def wants_object(annotation: Any, kind: Any) -> bool:
    """Tell whether an argument takes an object of a class, or None, and not a way to make one."""
    either = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return any(each in getattr(kind, "__mro__", ()) for each in either)


def _parameters(function: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return the arguments that it names, be it to hand them on, and whether it takes any."""
    return _of_class(function) if isinstance(function, type) else _of_makers([function])


@cache
def _of_class(kind: type) -> tuple[dict[str, inspect.Parameter], bool]:
    """Read its arguments once: annotations of a strategy's ten bases take milliseconds."""
    makers = [vars(each)["__init__"] for each in kind.__mro__ if "__init__" in vars(each)]
    return _of_makers(makers or [kind])


def _of_makers(
    makers: Sequence[Callable[..., Any]],
) -> tuple[dict[str, inspect.Parameter], bool]:
    found: dict[str, inspect.Parameter] = {}
    for maker in makers:
        parameters = declared(maker)
        found = {n: each for n, each in parameters.items() if each.kind in NAMED} | found
        if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            return found, False
    return found, True
