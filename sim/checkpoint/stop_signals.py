"""What ctrl-C and SIGTERM do to a run: it finishes the round, commits it and stops."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from types import FrameType

from sim.errors import PoolLost
from sim.tracking.run_files import METRICS

SIGNALS = (signal.SIGINT, signal.SIGTERM)
IN_A_ROUND = "stops when this round is done and committed"


class Stop:
    """Whether somebody asked the run to stop. Before its rounds, or asked twice, it stops at once.

    Attributes:
        number: Of the last signal that came; 0 = none.
    """

    def __init__(self) -> None:
        """Begin unasked."""
        self.number = 0
        self._times = 0
        self._waits = self._done = False
        self._put_off: Timer | None = None
        self._heard: list[signal.Signals] = []

    @contextmanager
    def listening(self, folder: Path) -> Iterator[None]:
        """Hear the signals, in the block, but those that this process was begun to ignore.

        Args:
            folder: The run folder: who stops a run is told how to go on with it.

        Yields:
            Nothing.

        Raises:
            SystemExit: The run was stopped.
        """
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self._heard = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
        self._listen()
        try:
            yield
        except KeyboardInterrupt:
            print(f"stopped; {_goodbye(folder)}", file=sys.stderr, flush=True)
            sys.exit(128 + (self.number or signal.SIGINT))
        finally:
            for number in self._heard:
                signal.signal(number, before[number])
            self._heard = []

    @contextmanager
    def at_the_end_of_rounds(self) -> Iterator[None]:
        """Stop at the end of a round, in the block, as `asked` tells; after the last not at all.

        Yields:
            Nothing.
        """
        self._waits = True
        self._listen()  # anew: Ray, as it starts, takes SIGTERM for a crash that is to be told
        try:
            yield
        except BaseException as error:
            self._waits = False
            if isinstance(error, PoolLost) and self.number:  # it went to Ray's processes too
                raise KeyboardInterrupt from None
            raise
        self._done = True

    def asked(self) -> bool:
        """Tell whether to stop after this round.

        Returns:
            Whether a signal came.

        Raises:
            KeyboardInterrupt: A second one came. Whoever it was raised in may have kept it.
        """
        if self._times > 1:
            raise KeyboardInterrupt
        return self._times > 0

    def _listen(self) -> None:
        for number in self._heard:
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if _torch_begins():
            if self._put_off is None or not self._put_off.is_alive():
                self._put_off = Timer(0.05, os.kill, (os.getpid(), number))
                self._put_off.start()
            return
        self.number = number
        self._times += 1
        if self._times > 1 or not self._waits:
            signal.alarm(0)  # if Ray heard it first, it aborts this process after 3 s
            raise KeyboardInterrupt
        what = "ends when the results are written" if self._done else IN_A_ROUND
        # Not `print`, which the signal may have interrupted.
        os.write(2, f"\n{what}; once more to stop at once\n".encode())


def _torch_begins() -> bool:
    """Tell whether torch is being imported: broken off it may abort, or when imported anew."""
    about = getattr(sys.modules.get("torch"), "__spec__", None)
    return bool(getattr(about, "_initializing", False))


def _goodbye(folder: Path) -> str:
    if not (folder / METRICS).exists():
        return "no round was begun"
    from sim.checkpoint.reading import how_to_go_on

    return how_to_go_on(folder)
