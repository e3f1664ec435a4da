"""Modules imported anew: what plug-ins of every make keep in a global is found, and put back."""

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from clients.partition import iid
from strategies.conformance.forgetting import imported_anew, told_by_order
from tests.quick_runs import modules_of

HELPER = """
SEEN = {}


def first(key, value):
    return SEEN.setdefault(key, value)
"""
PLAIN = """
from dataclasses import dataclass
from functools import cache, partial

import minding_helper
from minding_helper import first


def by_helper(client, turn, share=1):
    return first(client, turn)


def by_module(client, turn):
    return minding_helper.first(client, turn)


def by_default(client, turn, seen={}):
    return seen.setdefault(client, turn)


def made(factor):
    def inner(client, turn):
        return factor * first(client, turn)

    return inner


@cache
def counted():
    return []


def by_cache(client, turn):
    counted().append(turn)
    return len(counted())


class Called:
    seen = {}

    def __call__(self, client, turn):
        return self.seen.setdefault(client, turn)

    def method(self, client, turn):
        return self(client, turn)


@dataclass(frozen=True)
class Held:
    of: object

    def __call__(self, client, turn):
        return self.of(client, turn)


def honest(client, turn):
    return client + turn
"""
MAKES = {
    "a function": lambda m: m.by_helper,
    "a partial": lambda m: partial(m.by_helper, share=2),
    "one that imports a module": lambda m: m.by_module,
    "a default": lambda m: m.by_default,
    "a closure": lambda m: m.made(2),
    "a lambda of its own": lambda m: eval("lambda c, t: by_helper(c, t)", vars(m)),
    "a cache": lambda m: m.by_cache,
    "a class's attribute": lambda m: m.Called(),
    "a method": lambda m: m.Called().method,
    "an object that holds one": lambda m: m.Held(m.by_helper),
    "a partial that binds one": lambda m: partial(_calls, of=[m.by_helper]),
}


def _calls(client: int, turn: int, *, of: Any) -> Any:
    return of[0](client, turn)


def ask(plugin: Any, client: int, turn: int) -> Sequence[Any]:
    return [plugin(client, turn)]


ASKED = [(client, turn) for client in (0, 1) for turn in (1, 2)]


@pytest.fixture
def minding(tmp_path: Path) -> Iterator[ModuleType]:
    (tmp_path / "minding_helper.py").write_text(HELPER)
    (tmp_path / "minding.py").write_text(PLAIN)
    with modules_of(str(tmp_path)):
        import minding  # type: ignore[import-not-found]

        yield minding


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_who_came_first_is_found(make: Any, minding: ModuleType) -> None:
    assert told_by_order(make(minding), ask, ASKED) is not None


def test_what_has_been_dirtied_before_is_found_too(minding: ModuleType) -> None:
    for what in ASKED:
        minding.by_helper(*what)
    assert told_by_order(minding.by_helper, ask, ASKED) is not None
    assert minding.by_helper(0, 5) == 1  # the module that is there was not asked


def test_one_that_keeps_nothing_passes(minding: ModuleType) -> None:
    assert told_by_order(minding.honest, ask, ASKED) is None
    assert told_by_order(minding.Held(minding.honest), ask, ASKED) is None


def test_more_numbers_are_others(minding: ModuleType) -> None:
    def growing(plugin: Any, client: int, turn: int) -> Sequence[Any]:
        return [0] * plugin(client, turn)

    assert told_by_order(minding.by_cache, growing, ASKED) == (0, 1)


def test_modules_that_are_there_stay(minding: ModuleType) -> None:
    there = {name: sys.modules[name] for name in ("minding", "minding_helper")}
    new = imported_anew([*there])
    assert {name: sys.modules[name] for name in there} == there
    assert all(new[name] is not there[name] for name in there)
    assert new["minding"].first is new["minding_helper"].first


def test_what_ships_is_not_asked() -> None:
    def never(plugin: Any, *what: Any) -> Sequence[Any]:
        raise AssertionError

    assert told_by_order(iid, never, [(1,)]) is None
    assert told_by_order(np.sort, never, [(1,)]) is None


def test_a_module_that_cannot_be_imported_twice_is_left_alone(
    minding: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "minding.py").write_text(PLAIN + "\nraise RuntimeError('once only')\n")
    assert told_by_order(minding.by_default, ask, ASKED) is None
