"""`sim=auto`: a pool in this process where Ray would not pay, else one over Ray; the same bits."""

from dataclasses import dataclass, fields

import joblib

from sim.workers.pools import InlinePool, Pool
from sim.workers.process_setup import keep_memory, pin_threads

RAY_S = 10.0
"""What Ray costs before it computes: 5 to 8 s of its own and the workers' start, and their end."""


@dataclass(eq=False)
class AutoPool:
    """Options of a pool that is opened when it is known how much there is to compute.

    Attributes:
        seed: The run's seed.
        workers: As of `RayPool`, which these are chosen with; None = that they do not matter.
        threads: As of either pool.
        device: As of either; other than "cpu" it is Ray's.
        gpus_per_worker: As of `RayPool`, and so are the next four.
        object_store_bytes: None = it does not matter.
        address: None = there is no cluster.
        peer_workers: None = it does not matter.
        peer_timeout_s: > 0.
        client_timeout_s: As of either.
    """

    seed: int
    workers: int | None = None
    threads: int = 1
    device: str = "cpu"
    gpus_per_worker: float = 1.0
    object_store_bytes: int | None = None
    address: str | None = None
    peer_workers: int | None = None
    peer_timeout_s: float = 120.0
    client_timeout_s: float | None = None

    def __post_init__(self) -> None:
        """Set this process to what either pool would."""
        self._opened: Pool | None = None
        pin_threads(self.threads)
        keep_memory()

    def open(self, work_s: float, processes: int = 1) -> tuple[Pool, str]:
        """Open the pool that is done sooner.

        Args:
            work_s: How long clients will compute, on one core; estimated.
            processes: How many the student is trained by: more than one are Ray's.

        Returns:
            It, and which it is and why; whoever has it closed closes this, too.

        Raises:
            ValueError: As of the pool that is opened.
        """
        work = f"about {work_s:,.0f} s of work" if work_s >= 1 else "less than 1 s of work"
        saved_s = work_s * (1 - 1 / (self.workers or joblib.cpu_count()))
        if saved_s <= RAY_S and processes == 1 and not self._wants_ray():
            here = self.threads, self.device
            self._opened = InlinePool(self.seed, *here, client_timeout_s=self.client_timeout_s)
            return self._opened, f"in this process, {work}"
        from sim.workers.ray_pool import RayPool  # here: with Ray, half a second

        self._opened = RayPool(**{each.name: getattr(self, each.name) for each in fields(self)})
        return self._opened, f"over Ray, {work}"

    def _wants_ray(self) -> bool:
        """Tell whether something is given that only Ray has."""
        only = self.workers, self.address, self.object_store_bytes, self.peer_workers
        return self.device != "cpu" or any(each is not None for each in only)

    def close(self) -> None:
        """Close what was opened."""
        if self._opened is not None:
            self._opened.close()
