"""Exceptions that a client may raise, and some that nobody expects."""

import asyncio
from collections.abc import Callable
from typing import Any

from flwr.app import MetricRecord


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


class Unnamed(type):
    """Its classes have no name."""

    __name__ = property(lambda cls: 1 / 0)  # type: ignore[assignment]


class Nameless(Exception, metaclass=Unnamed):
    """Its type's name raises."""


class _Text(str):
    """A text of which nothing can be done."""

    def _refuse(self, *arguments: object) -> Any:
        raise ZeroDivisionError("no text")

    strip = splitlines = encode = __len__ = __getitem__ = _refuse


class _Unlike(str):
    """A text that becomes something else when it is stripped."""

    def strip(self, chars: object = None) -> Any:
        return 7


class Texted(Exception):
    """Its text is of a type that strips otherwise."""

    def __str__(self) -> str:
        return _Unlike("odd")


class Unread(Exception):
    """Its text cannot be cut, nor encoded."""

    def __str__(self) -> str:
        return _Text("odd")


class Unbound:
    """Does not say what it is, as a proxy that stands for nothing."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("unbound")

    @__class__.setter
    def __class__(self, value: Any) -> None: ...


class Ending(MetricRecord):
    """Numbers that end the process which reads them."""

    def items(self) -> Any:
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
        Nameless,
        Texted,
        Unread,
    ),
    *(MemoryError, RecursionError, asyncio.CancelledError, StopAsyncIteration),
    *(lambda: ValueError("e" * 10**6), lambda: ValueError("\ud800\n\x1b[31m"), lambda: OSError(5)),
    *(lambda: RuntimeWarning("w"), lambda: SystemExit(0), lambda: SystemExit("bye"), ValueError),
    *(lambda: ExceptionGroup("g", [ValueError("in")]), lambda: FloatingPointError("diverged")),
    *(lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"), lambda: KeyError("\n")),
)
