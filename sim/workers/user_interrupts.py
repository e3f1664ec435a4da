"""Telling a user's ctrl-C from the interrupts that a client's code raises."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def heard_signals() -> Iterator[Callable[[], None]]:
    """Note what this process's own signal handlers raise inside the block.

    A client may raise KeyboardInterrupt by itself, which is its failure, or swallow the one that
    was meant for the run. So whatever a handler raises is remembered, and raised again.

    Yields:
        A function that raises again what a handler raised, and does nothing if none did. Handlers
        run in the main thread only: elsewhere it does nothing.
    """
    raised: list[BaseException] = []

    def noting(handler: Callable[[int, FrameType | None], Any]) -> Any:
        def heard(number: int, frame: FrameType | None) -> None:
            try:
                handler(number, frame)
            except BaseException as error:
                raised.append(error)
                raise

        return heard

    def again() -> None:
        if raised:
            raise raised[0]

    before: dict[signal.Signals, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):  # not ignored, nor left to the system
                    before[number] = handler
                    signal.signal(number, noting(handler))
        yield again
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
