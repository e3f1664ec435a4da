"""A group of peers: who it is, what it is to learn, and its state between two epochs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from clients.models.factory import ModelFunction, Parameters
from clients.mutual.group_heads import HeadFunction
from clients.mutual.terms import Rule
from clients.training.optimizer_steps import Optimizer
from clients.training.schedules import Scheduler

Update = Literal["simultaneous", "sequential"]


@dataclass(frozen=True, eq=False)
class Peer:
    """One learner of a group.

    Attributes:
        name: What curves and errors call it, unique in its group.
        model: Its model function.
        optimizer: Makes its optimiser.
        tap: Module whose output is its feature; None = where `clients.training.taps.last_map` says.
    """

    name: str
    model: ModelFunction
    optimizer: Optimizer
    tap: str | None = None


@dataclass(frozen=True, eq=False)
class Head:
    """What the group learns in common.

    Attributes:
        build: One of `clients.mutual.group_heads`, its numbers bound.
        optimizer: Makes its optimiser.
    """

    build: HeadFunction
    optimizer: Optimizer


@dataclass(frozen=True, eq=False)
class GroupLesson:
    """What a group is to learn, and how: the same for all its processes.

    Attributes:
        peers: Who, K >= 1.
        rule: One of `clients.mutual.rules`, its numbers bound.
        head: Beside them; None = none.
        ids: Which examples of the data set [n].
        targets: Soft labels [n, C], rows summing to 1, or to 0 where nothing is known.
        epochs: Passes over the examples, >= 0.
        batch_size: Examples per step, >= 1.
        update: Whether all peers step at once, or in turn, each answering anew after its step.
        refresh_epochs: Every so many epochs all peers answer all examples anew, for rules that look
            at stale answers, >= 1; None = never.
        seed: The run's.
        key: (round, client) that all random streams are keyed by, beside the seed.
        first_epoch: What rules count epochs from, for their ramps: those of earlier rounds.
        scheduler: Of the learning rates of peers and head, turned by the same epochs; None = they
            stay.
    """

    peers: tuple[Peer, ...]
    rule: Rule
    head: Head | None
    ids: npt.NDArray[np.int64]
    targets: Tensor
    epochs: int
    batch_size: int
    update: Update = "simultaneous"
    refresh_epochs: int | None = None
    seed: int = 0
    key: tuple[int, int] = (0, 0)
    first_epoch: int = 0
    scheduler: Scheduler | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be run; ValueError names it."""
        names = [peer.name for peer in self.peers]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"peers {names}: expected at least one, names all different")
        if len(self.ids) == 0 or len(self.ids) != len(self.targets):
            raise ValueError(f"{len(self.targets)} targets for {len(self.ids)} examples")
        if self.epochs < 0 or self.batch_size < 1:
            raise ValueError(
                f"epochs={self.epochs}, batch_size={self.batch_size}: expected >= 0 and >= 1"
            )
        if self.update not in ("simultaneous", "sequential"):
            raise ValueError(f"update={self.update}: expected simultaneous or sequential")
        if self.refresh_epochs is not None and self.refresh_epochs < 1:
            raise ValueError(f"refresh_epochs={self.refresh_epochs}: expected >= 1 or None")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A learner between two epochs.

    Attributes:
        parameters: And buffers.
        optimizer: Its optimiser's state; None = a fresh one.
    """

    parameters: Parameters
    optimizer: dict[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class GroupState:
    """A group between two epochs: all that the next one depends on.

    Attributes:
        peers: Each peer's snapshot.
        head: The head's; None = none, or not built yet.
        stale: Answers of all peers to all examples at the last refresh [K, n, C]; None = none yet.
        epoch: How many epochs are done.
        losses: Of each step: every peer's, and the joint one, 0 without [steps, K + 1].
        sent_bytes: What the processes of the group sent each other.
    """

    peers: tuple[Snapshot, ...]
    head: Snapshot | None = None
    stale: npt.NDArray[np.float32] | None = None
    epoch: int = 0
    losses: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    sent_bytes: int = 0


@dataclass(frozen=True, eq=False)
class Part:
    """What one process made of an epoch.

    Attributes:
        peers: Snapshots of the peers it ran, by their place.
        head: As in `GroupState`, of the host.
        stale: As in `GroupState`, of the host.
        losses: Of the epoch's steps [steps, K + 1], of the host.
        sent_bytes: What it sent.
    """

    peers: dict[int, Snapshot]
    head: Snapshot | None = None
    stale: npt.NDArray[np.float32] | None = None
    losses: npt.NDArray[np.float64] | None = None
    sent_bytes: int = 0


def joined(state: GroupState, parts: Sequence[Part]) -> GroupState:
    """Put together what the processes made of an epoch, the host's part first."""
    peers: dict[int, Snapshot] = {}
    for part in parts:
        peers |= part.peers
    host = parts[0]
    assert host.losses is not None, "the host's part comes first"
    before = state.losses if state.epoch else host.losses[:0]
    return GroupState(
        peers=tuple(peers[k] for k in range(len(state.peers))),
        head=host.head,
        stale=host.stale,
        epoch=state.epoch + 1,
        losses=np.concatenate([before, host.losses]),
        sent_bytes=state.sent_bytes + sum(part.sent_bytes for part in parts),
    )
