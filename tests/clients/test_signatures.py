"""What a function names, and what it needs and nobody has."""

from functools import partial
from typing import Any

import pytest

from clients.signatures import named_of, unoffered


def taking(network: Any, labels: Any, *, rng: Any, epsilon: float = 0.1, client_id: Any) -> None:
    """Names two that must be given."""


def open_ended(*networks: Any, **others: Any) -> None:
    """Names nothing."""


def test_a_function_gets_what_it_names_and_nothing_else_is_made() -> None:
    def fail() -> Any:
        raise AssertionError("made for nobody")

    offered = {"rng": lambda: 3, "client_id": lambda: None, "task": fail}
    assert named_of(taking, offered) == {"rng": 3, "client_id": None}
    assert named_of(partial(taking, rng=5), offered) == {"client_id": None}  # what is bound stays
    assert named_of(open_ended, {"task": fail}) == {}


@pytest.mark.parametrize(
    ("function", "offered", "name"),
    [
        (taking, (), "rng"),
        (taking, ("rng",), "client_id"),
        (taking, ("rng", "client_id"), None),
        (partial(taking, rng=1), (), "client_id"),
        (partial(taking, rng=1, client_id=2), (), None),
        (partial(taking, 1), ("rng", "client_id"), None),
        (open_ended, (), None),
    ],
)
def test_the_first_argument_that_nobody_gives_is_named(
    function: Any, offered: tuple[str, ...], name: str | None
) -> None:
    assert unoffered(function, 2, offered) == name
