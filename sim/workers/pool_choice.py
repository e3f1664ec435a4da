"""`sim=auto`: a pool in this process where Ray would not pay, else one over Ray; the same bits."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated

import joblib

if TYPE_CHECKING:
    from sim.workers.pools import Pool

RAY_S = 10.0
"""What Ray costs before it computes: 5 to 8 s of its own and the workers' start, and their end."""

WANT_PROCESSES = ("workers", "address", "object_store_bytes", "peer_workers", "client_timeout_s")
"""Options that ask for Ray where they are given."""

OF_ONE_PROCESS = ("state_memory_bytes",)
"""What `RayPool` does not have."""


@dataclass(eq=False)
class AutoPool:
    """Options of a pool that is opened when it is known how much there is to compute.

    Ray is started at once, while torch is imported, where something is given that only it has, or
    that wants processes: another device than the CPU, workers, memory for them, a cluster, a limit
    of time, which ends a worker that hangs.

    Attributes:
        seed: The run's seed.
        workers: As of `RayPool`; None = it does not matter.
        threads: As of either pool.
        device: As of either.
        gpus_per_worker: As of `RayPool`.
        object_store_bytes: As of `RayPool`; None = it does not matter.
        address: As of `RayPool`; None = there is no cluster.
        peer_workers: As of `RayPool`; None = it does not matter.
        peer_timeout_s: As of `RayPool`.
        client_timeout_s: As of `RayPool`; None = there is no limit.
        state_memory_bytes: As of `InlinePool`.
    """

    seed: int
    workers: Annotated[int, ">= 1"] | None = None
    threads: Annotated[int, ">= 1"] = 1
    device: str = "cpu"
    gpus_per_worker: Annotated[float, "> 0"] = 1.0
    object_store_bytes: Annotated[int, ">= 78643200, Ray's least"] | None = None
    address: str | None = None
    peer_workers: Annotated[int, ">= 1"] | None = None
    peer_timeout_s: Annotated[float, "> 0"] = 120.0
    client_timeout_s: Annotated[float, "> 0, or null for never"] | None = None
    state_memory_bytes: Annotated[int, ">= 0"] = 2**30

    def __post_init__(self) -> None:
        """Start Ray if it is wanted; set this process to what either pool would."""
        self._opened: Pool | None = None
        self._wanted = [name for name in WANT_PROCESSES if getattr(self, name) is not None]
        self._wanted += ["device"] * (self.device != "cpu")
        if self._wanted:
            self._opened = self._over_ray()
            return
        from sim.workers.process_setup import keep_memory, pin_threads  # here: with torch

        pin_threads(self.threads)
        keep_memory()

    def open(self, work_s: float, processes: int = 1) -> "tuple[Pool, str]":
        """Open the pool that is done sooner, unless Ray was wanted.

        Args:
            work_s: How long clients will compute, on one core; estimated.
            processes: How many the student is trained by: more than one are Ray's.

        Returns:
            It, and which it is and why; whoever has it closed closes this, too.

        Raises:
            ValueError: As of the pool that is opened.
        """
        if self._opened is not None:
            return self._opened, f"over Ray, as sim.{self._wanted[0]} asks"
        work = f"about {work_s:,.0f} s" if work_s >= 1 else "less than 1 s"
        work += " of clients' work"
        workers = max(1, joblib.cpu_count() // self.threads)
        if processes == 1 and work_s * (1 - 1 / workers) <= RAY_S:
            from sim.workers.pools import InlinePool

            options = self.seed, self.threads, self.device, self.state_memory_bytes
            self._opened = InlinePool(*options)
            return self._opened, f"in this process, {work}"
        self._opened = self._over_ray()
        return self._opened, f"over Ray, {work}"

    def _over_ray(self) -> "Pool":
        from sim.workers.ray_pool import RayPool  # here: with Ray, half a second

        names = [each.name for each in fields(self) if each.name not in OF_ONE_PROCESS]
        return RayPool(**{name: getattr(self, name) for name in names})

    def close(self) -> None:
        """Close what was opened."""
        if self._opened is not None:
            self._opened.close()
