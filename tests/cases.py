"""A case: a small input that failed once, or that a figure was checked on, and what is right."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Case(NamedTuple):
    """What is right, and what shows it.

    Attributes:
        right: One line.
        tests: Tests that state it, "module.test_name" below tests/.
        check: Shows it itself, in a folder of its own; None = the tests do.
    """

    right: str
    tests: tuple[str, ...] = ()
    check: Callable[[Path], None] | None = None
