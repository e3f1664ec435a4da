"""The processes of a Ray pool: started, given the program, replaced where one is lost."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import ray

STARTS = 3
"""How often in a row a worker may die before it is up; then its place stays empty."""

SAY_AFTER_S, SAY_EVERY_S = 10.0, 60.0
"""When it is said that workers wait, maybe for CPUs that others have."""


class RayWorkers:
    """Worker processes by place. One that starts, or waits for a CPU, is not ready."""

    def __init__(
        self, start: Callable[[bool], Any], count: int, patience_s: float = SAY_AFTER_S
    ) -> None:
        """Start them.

        Args:
            start: Starts an actor, given whether it is to claim a CPU; it need not be up at once.
            count: How many, >= 1.
            patience_s: After how long it is said that they are not up.
        """
        self._start = start
        self._patience_s = patience_s
        self.actors = [start(True) for _ in range(count)]
        self._program: Any = None
        self._ranks: list[int] = [*range(count)]
        self._unclaimed: set[int] = set()
        self._failures: Counter[int] = Counter()
        self.loading: dict[Any, int] = {}
        self.ready: set[int] = set()
        self.broken = ""
        self._waits_since = self._say_at = time.monotonic()

    def load(self, program: Any) -> None:
        """Give all of them the program, a reference; each is ready when it has it."""
        self._program = program
        self.ready, self.loading = set(), {}
        for place in range(len(self.actors)):
            self._load(place)

    def loaded(self, answer: Any) -> int | None:
        """Take in what became of one that was starting.

        Args:
            answer: One of `loading`.

        Returns:
            Its place, if it is ready now.

        Raises:
            RuntimeError: It cannot load the program.
        """
        place: int = self.loading.pop(answer)
        try:
            ray.get(answer)
        except ray.exceptions.RayTaskError as error:
            raise RuntimeError(f"the workers cannot load the program: {error}") from error
        except ray.exceptions.RayError as death:
            self._failures[place] += 1
            broken = getattr(death, "actor_init_failed", False)
            if broken or self._failures[place] >= STARTS:
                self.broken = str(death)
            else:
                self.replace(place)
            return None
        del self._failures[place]
        self.ready.add(place)
        return place

    def replace(self, place: int, claim: bool = True) -> None:
        """Put a new worker where one was lost, or hangs.

        Args:
            place: Which.
            claim: Whether it waits for a CPU of its own.
        """
        ray.kill(self.actors[place])  # were it alive, the new one might wait for its CPU for ever
        self.ready.discard(place)
        self.loading = {answer: at for answer, at in self.loading.items() if at != place}
        self._unclaimed -= {place}
        self._unclaimed |= set() if claim else {place}
        self.actors[place] = self._start(claim)
        self._load(place)

    def gather(self, size: int, timeout_s: float) -> None:
        """Wait for so many to be ready; from then on they are ranks 0, 1, ...

        Those whose CPUs are gone with their machine share those of others: whoever gathers needs
        that many processes, and the bits may depend on it.

        Args:
            size: How many.
            timeout_s: How long to wait; then some of them are not ready.
        """
        until = time.monotonic() + timeout_s
        while len(self.ready) < size and self.loading and time.monotonic() < until:
            done, _ = ray.wait(list(self.loading), num_returns=1, timeout=1.0)
            for answer in done:
                self.loaded(answer)
            if not done and cpus()[1] < len(self.actors):
                missing = [at for at in self.loading.values() if at not in self._unclaimed]
                for place in missing[: size - len(self.ready)]:
                    self.replace(place, claim=False)
            self.say_if_waiting()
        self._ranks = sorted(range(len(self.actors)), key=lambda at: (at not in self.ready, at))

    def of_rank(self, rank: int) -> int:
        """Return the place of a rank, as of the last `gather`."""
        return self._ranks[rank]

    def say_if_waiting(self) -> float:
        """Say, if it takes long, how many are up, and why no more; return when next, in seconds."""
        now = time.monotonic()
        if now < self._say_at:
            return self._say_at - now
        free, there = cpus()
        print(
            f"sim=ray: {len(self.ready)} of {len(self.actors)} workers are up after "
            f"{now - self._waits_since:.0f} s; {free:g} of Ray's {there:g} CPUs are free"
            f"{'' if self.ready else ': still waiting'}",
            file=sys.stderr,
        )
        self._say_at = float("inf") if self.ready else now + SAY_EVERY_S
        return self._say_at - now

    def end(self) -> None:
        """End all of them."""
        for actor in self.actors:
            ray.kill(actor)
        self.actors = []

    def _load(self, place: int) -> None:
        if not self.loading:
            self._waits_since = time.monotonic()
            self._say_at = self._waits_since + self._patience_s
        self.loading[self.actors[place].load.remote(self._program)] = place


def cpus() -> tuple[float, float]:
    """Count the CPUs of Ray that are free, and all."""
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return free.get("CPU", 0.0), there.get("CPU", 0.0)
