"""Exceptions that a client may raise, and some that nobody expects."""

import asyncio
from collections.abc import Callable


class OddError(BaseException):
    """No Exception."""


class Silent(Exception):
    """Its text raises."""

    def __str__(self) -> str:
        raise ZeroDivisionError("no text")

    __repr__ = __str__


class Mute(Exception):
    """Its text is none."""

    __str__ = MemoryError  # type: ignore[assignment]


class Stubborn(Exception):
    """Its text stops the process that asks for it."""

    def __str__(self) -> str:
        raise SystemExit(1)


RAISED: tuple[Callable[[], BaseException], ...] = (
    *(
        KeyboardInterrupt,
        GeneratorExit,
        StopIteration,
        SystemExit,
        OddError,
        Silent,
        Mute,
        Stubborn,
    ),
    *(MemoryError, RecursionError, asyncio.CancelledError, StopAsyncIteration),
    *(lambda: ValueError("e" * 10**6), lambda: ValueError("\ud800\n\x1b[31m"), lambda: OSError(5)),
    *(lambda: RuntimeWarning("w"), lambda: SystemExit(0), lambda: SystemExit("bye"), ValueError),
    *(lambda: ExceptionGroup("g", [ValueError("in")]), lambda: FloatingPointError("diverged")),
    *(lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"), lambda: KeyError("\n")),
)
