"""What a function is given by name: what it names, made only then; and what nobody gives it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from clients.signatures import declared, named_of, unoffered


def plain(labels: Any, rng: Any, *, ids: Any, share: float = 0.5) -> None: ...


def anything(labels: Any, **numbers: Any) -> None: ...


def placed(labels: Any, ids: Any, /) -> None: ...


class Made:
    """Is called with what it names, and built with something else."""

    def __init__(self, inputs: Any = None) -> None: ...

    def __call__(self, labels: Any, *, ids: Any) -> None: ...


def offers(*names: str) -> tuple[dict[str, Callable[[], str]], list[str]]:
    """What is offered, and which of it was made so far."""
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return name.upper()

    return {name: partial(make, name) for name in names}, made


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (plain, ["rng", "ids"]),
        (partial(plain, rng=0), ["ids"]),
        (partial(plain, ids=0), ["rng"]),
        (anything, []),
        (partial(anything, ids=0), []),
        (placed, []),
        (Made(), ["ids"]),
        (Made, ["inputs"]),
    ],
    ids=["plain", "rng bound", "ids bound", "any", "any bound", "by position", "object", "class"],
)
def test_what_is_named_and_not_bound_is_made_and_nothing_else(
    function: Callable[..., Any], names: list[str]
) -> None:
    offered, made = offers("ids", "inputs", "rng")
    assert named_of(function, offered) == {name: name.upper() for name in names}
    assert sorted(made) == sorted(names)


@pytest.mark.parametrize(
    ("function", "places", "offered", "odd"),
    [
        (plain, 2, ["ids"], None),
        (plain, 1, ["ids"], "rng"),
        (plain, 1, ["ids", "rng"], None),
        (plain, 2, [], "ids"),
        (partial(plain, ids=0), 2, [], None),
        (partial(plain, None), 1, ["ids"], None),  # what is bound by position is no place any more
        (anything, 1, [], None),
        (placed, 1, ["ids"], "ids"),  # nobody can give it by its name
        (placed, 2, [], None),
        (Made(), 1, [], "ids"),
        (Made, 0, [], None),
    ],
)
def test_the_first_argument_that_nobody_gives_is_named(
    function: Callable[..., Any], places: int, offered: list[str], odd: str | None
) -> None:
    assert unoffered(function, places, offered) == odd


def typed(width: "int", depth: "Nowhere", *, loss: "Any" = None) -> None: ...  # noqa: F821


def test_annotations_of_what_is_imported_for_type_checkers_only_stay_text() -> None:
    found = {name: each.annotation for name, each in declared(typed).items()}
    assert found == {"width": int, "depth": "Nowhere", "loss": Any}
    assert declared(plain)["share"].annotation is float
