"""Faults and bits, many times: `python -m benchmarks.fault_matrix --times 50`.

Each time every method runs on every pool: undisturbed, with a worker killed in each of three
moments, and with the driver killed at a write point, another one each time, and resumed. All must
come to the hash of the undisturbed inline run. Prints what differs, and how many did.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

from sim.workers.pools import Pool
from sim.workers.process_setup import assume_task_identity
from tests.faults import KILLS, METHODS, WritePoints, hash_of_run, killed_and_resumed
from tests.federations import inline, open_pool


class Matrix:
    """Runs cells and counts those that differ."""

    def __init__(self, folder: Path) -> None:
        """Run the references."""
        self._folder, self._orders = folder, folder / "orders"
        self._orders.mkdir()
        self._points, self._rng = WritePoints(), random.Random(0)
        self.runs = self.differ = self.went_on = 0
        self._write_points: dict[str, int] = {}
        self._expected: dict[str, str] = {}
        for method in METHODS:
            with self._points.killing(place := self._fresh(), 10**6):
                self._expected[method] = hash_of_run(inline(None), method, place, self._orders)
            self._write_points[method] = self._points.seen

    def row(self, name: str, pool: Pool, kills: tuple[str, ...]) -> None:
        """Run all cells of one pool once."""
        for method in METHODS:
            for kill in ("", *kills):
                if kill:
                    (self._orders / kill).touch()
                found = hash_of_run(pool, method, self._fresh(), self._orders)
                done = not any(self._orders.iterdir())
                self._count(f"{name} {method} {kill or 'undisturbed'}", method, found, done)
            at = self._rng.randint(1, self._write_points[method])
            place = self._fresh()
            place.rmdir()
            left, found = killed_and_resumed(pool, method, place, self._orders, self._points, at)
            self.went_on += bool(left)
            self._count(f"{name} {method} driver killed at {at}", method, found, left is not None)

    def _count(self, cell: str, method: str, found: str, happened: bool) -> None:
        self.runs += 1
        if not happened:
            raise RuntimeError(f"{cell}: the fault did not happen")
        if found != self._expected[method]:
            self.differ += 1
            print(f"DIFFERS: {cell}", flush=True)

    def _fresh(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--workers", default="1,2,4", help="of the Ray pools, by commas; '' = none")
    given = parser.parse_args()
    assume_task_identity(run_id=1)
    with tempfile.TemporaryDirectory() as folder:
        matrix, began = Matrix(Path(folder)), time.monotonic()
        for _ in range(given.times):
            matrix.row("inline", inline(None), ())
        say(matrix, "inline", began)
        for workers in map(int, filter(None, given.workers.split(","))):
            with open_pool("ray", None, workers) as pool:
                for _ in range(given.times):
                    matrix.row(f"ray-{workers}", pool, KILLS)
                say(matrix, f"and ray-{workers}", began)


def say(matrix: Matrix, name: str, began: float) -> None:
    seconds = time.monotonic() - began
    print(
        f"{name}: {matrix.runs} runs, of which {matrix.went_on} went on from a commit, "
        f"{matrix.differ} differ, {seconds:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
