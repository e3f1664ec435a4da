"""Peak memory and CPU time over all processes of a benchmark, wherever they were started from."""

import contextlib
import os
import threading
import time
from pathlib import Path
from types import TracebackType

MARK = "BENCHMARK_MARK"
"""Environment variable by which a benchmark's processes are known. Children inherit it, also those
that detach themselves from their parent, as Ray's do."""


def processes_of(mark: str) -> list[int]:
    """Return the ids of the processes that were started with `MARK=mark` in their environment."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def proportional_bytes(pid: int) -> int:
    """Return a process's proportional set size: memory shared by n processes counts 1/n for each.

    So the sum over processes counts a mapped data set or Ray's object store once. 0 if the process
    has ended.
    """
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0


def cpu_seconds(mark: str | None) -> float:
    """Return the CPU time that this process and all of a mark have had, with ended children's.

    What a process had that ended unnoticed by its parent is not in it.

    Args:
        mark: None = this process, and its children, only.

    Returns:
        Seconds, user and system.
    """
    own = os.times()
    total = sum(own[:4])
    for pid in processes_of(mark) if mark is not None else ():
        with contextlib.suppress(OSError):
            after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, after_name[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


class PeakMemory:
    """Samples the memory of all processes of a mark while the block runs.

    A sample costs some milliseconds per process, so rounds that are sampled are not timed.
    """

    def __init__(self, mark: str, every_s: float = 0.2) -> None:
        self._mark = mark
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.peak_bytes = 0

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(self._every_s):
            total = sum(proportional_bytes(pid) for pid in processes_of(self._mark))
            self.peak_bytes = max(self.peak_bytes, total)


def wait_until_gone(mark: str, timeout_s: float = 30) -> None:
    """Wait until no process of a mark is left, so that the next benchmark has the machine.

    Raises:
        TimeoutError: Some are still there.
    """
    deadline = time.monotonic() + timeout_s
    while left := processes_of(mark):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {left} are still running {timeout_s} s after their end")
        time.sleep(0.1)
