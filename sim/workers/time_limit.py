"""A real timer, which ends what runs in this thread."""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

Result = TypeVar("Result")

AGAIN_S = 1.0
"""How soon it goes off again, for code that swallows whatever is raised in it."""


class _Overdue(BaseException):
    """The time is over. No client's `except Exception` is to catch it."""


def require_timer(key: str) -> None:
    """Raise ValueError, naming the key, where there is no timer: it needs the main thread."""
    if threading.current_thread() is not threading.main_thread():
        raise ValueError(f"{key}: only the main thread has a timer, set it to null")


def within(seconds: float, run: Callable[[], Result]) -> Result | None:
    """Call a function, but not for longer than a time limit.

    Python code is ended between two of its steps; one call of a library, however long, is not.

    Args:
        seconds: The limit, > 0, by the clock on the wall.
        run: What to call.

    Returns:
        What it returned; None if the limit ended it, or it caught that it was to end.
    """
    armed, overdue = [True], []

    def go_off(number: int, frame: FrameType | None) -> None:
        overdue.append(number)
        if armed:
            raise _Overdue

    result: Result | None = None
    before, began = signal.signal(signal.SIGALRM, go_off), time.monotonic()
    others = 0.0, 0.0
    try:
        try:
            others = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
            result = run()
        finally:
            armed.clear()
    except _Overdue:
        armed.clear()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        if others[0]:  # somebody else's timer goes on
            left = max(others[0] - (time.monotonic() - began), 1e-3)
            signal.setitimer(signal.ITIMER_REAL, left, others[1])
    return None if overdue else result
