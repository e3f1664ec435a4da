"""How processes of a group send each other numbers: torch.distributed between Ray workers."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

LOOPBACK = "127.0.0.1"
"""Where processes of one machine meet, if all are there."""


class LinkLost(RuntimeError):
    """Another process of the group did not answer."""


@dataclass(frozen=True)
class Meeting:
    """Where the processes of a group find each other, once.

    Attributes:
        host: Address of the store.
        port: Its port.
        name: Of this meeting.
        size: How many processes meet.
        timeout_s: How long any of them waits for another.
        backend: "gloo", or "nccl" where each process has a GPU of its own.
    """

    host: str
    port: int
    name: str
    size: int
    timeout_s: float
    backend: str


class TorchLink:
    """A process group; with gloo numbers go through CPU memory."""

    def __init__(self, meeting: Meeting, rank: int, device: str) -> None:
        """Meet the others.

        Args:
            meeting: Where.
            rank: This process's.
            device: Where received numbers go.

        Raises:
            LinkLost: They did not come.
        """
        self.rank = rank
        self.sent_bytes = 0
        self._device = "cpu" if meeting.backend == "gloo" else device
        limit = timedelta(seconds=meeting.timeout_s)
        try:
            store = PrefixStore(meeting.name, TCPStore(meeting.host, meeting.port, timeout=limit))
            # Not `init_process_group`: after one that failed, torch's global group has another name
            # than in a process that is new, and they would never meet.
            self._group = _group(meeting, store, rank, limit)
        except RuntimeError as error:
            raise LinkLost(f"rank {rank} of {meeting.size}: nobody to meet: {error}") from error

    def send(self, numbers: Tensor, rank: int) -> None:
        """Send float32 numbers [n] to another process."""
        self.sent_bytes += numbers.numel() * numbers.element_size()
        try:
            self._group.send([numbers.to(self._device).contiguous()], rank, 0).wait()
        except RuntimeError as error:
            raise LinkLost(f"rank {self.rank} cannot send to rank {rank}: {error}") from error

    def receive(self, size: int, rank: int) -> Tensor:
        """Receive float32 numbers [size] from another process."""
        numbers = torch.empty(size, device=self._device)
        try:
            self._group.recv([numbers], rank, 0).wait()
        except RuntimeError as error:
            raise LinkLost(f"rank {self.rank} hears nothing of rank {rank}: {error}") from error
        return numbers

    def total(self, numbers: Tensor) -> Tensor:
        """Add up float32 numbers [n] over all processes; each gets the same sums."""
        self.sent_bytes += numbers.numel() * numbers.element_size()
        sums = numbers.to(self._device).contiguous()
        try:
            self._group.allreduce([sums]).wait()
        except RuntimeError as error:
            raise LinkLost(f"rank {self.rank} cannot add up with the others: {error}") from error
        return sums

    def close(self) -> None:
        """Part: the others' connections to this process end."""
        self._group = None


def _group(meeting: Meeting, store: Any, rank: int, limit: timedelta) -> Any:
    if meeting.backend == "gloo":
        gloo, own = dist.ProcessGroupGloo, dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        own._timeout = limit
        alone = meeting.host == LOOPBACK  # then who is elsewhere need not reach us either
        device = gloo.create_device(hostname=LOOPBACK) if alone else gloo.create_default_device()
        own._devices = [device]
        return gloo(store, rank, meeting.size, own)
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = limit
    return dist.ProcessGroupNCCL(store, rank, meeting.size, options)
