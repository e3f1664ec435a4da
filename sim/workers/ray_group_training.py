"""Groups of peers, and a student's training, spread over the workers of a Ray pool."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from torch import Tensor, nn

from clients.data import Dataset
from clients.models.factory import load_parameters
from clients.mutual.data_parallel import require_shardable, train_shard
from clients.mutual.group import GroupLesson, GroupState, Part, joined
from clients.mutual.lockstep import Link, run_epoch
from clients.training.loop import Trainer
from clients.training.objective import Loss
from sim.workers.ray_together import Together


class SpreadPeers:
    """Trains groups over a pool's workers; called as `clients.mutual.lockstep.train_peers` is."""

    def __init__(self, together: Together, workers: int | None = None) -> None:
        """Choose the workers.

        Args:
            together: Runs functions in them.
            workers: Most that a group is spread over, >= 1: with 1 all its peers are in one
                process; None = all.

        Raises:
            ValueError: The number is out of range.
        """
        if workers is not None and workers < 1:
            raise ValueError(f"sim.peer_workers={workers}: expected >= 1")
        self._together = together
        self._most = workers

    def __call__(
        self,
        lesson: GroupLesson,
        start: GroupState,
        dataset: Dataset,
        commit: Callable[[GroupState], None] = lambda state: None,
    ) -> GroupState:
        """Train a group; see `clients.mutual.lockstep.train_peers`.

        A worker that dies takes its peers with it: the epoch is run again, with a new worker, from
        the state after the last one, so that nothing of the result changes.

        Args:
            lesson: What to learn.
            start: Where the group goes on from.
            dataset: Where the inputs are.
            commit: Called after each epoch.

        Returns:
            The group afterwards.

        Raises:
            WorkersLost: An epoch could not be run, however often it was tried.
        """
        there = self._together.workers.size()
        count = min(len(lesson.peers), self._most or there, there)
        places = [k % count for k in range(len(lesson.peers))]
        shared = (ray.put(lesson), self._together.put(dataset))
        state = start

        def what(lost: set[int]) -> str:
            names = [p.name for p, rank in zip(lesson.peers, places, strict=True) if rank in lost]
            epoch = f"epoch {state.epoch + 1} of {lesson.epochs}"
            return f"peers {', '.join(names)} lost in {epoch}"

        while state.epoch < lesson.epochs:
            before = ray.put(state)
            parts = self._together.run(count, _epoch_of, places, before, *shared, what=what)
            state = joined(state, parts)
            commit(state)
        return state


def _epoch_of(
    link: Link,
    places: Sequence[int],
    state: GroupState,
    lesson: GroupLesson,
    dataset: Dataset,
    *,
    device: str,
) -> Part:
    return run_epoch(lesson, state, places, dataset, link, device)


@dataclass(frozen=True, eq=False)
class SharedTraining:
    """Trains one network with several workers, each on a share of every batch.

    Attributes:
        together: Runs functions in them.
        workers: How many, >= 1.
        train: `clients.training.loop.train` with its numbers bound.
    """

    together: Together
    workers: int
    train: Trainer

    @property
    def keywords(self) -> dict[str, Any]:
        """Numbers that are bound, as of a partial."""
        return require_shardable(self.train)

    def __post_init__(self) -> None:
        """Refuse too few workers, and somebody else's trainer, by ValueError."""
        if self.workers < 1:
            raise ValueError(f"student_workers={self.workers}: expected >= 1")
        require_shardable(self.train)

    def __call__(
        self,
        model: nn.Module,
        dataset: Dataset,
        indices: npt.NDArray[np.int64],
        targets: Tensor,
        loss: Loss,
        rng: np.random.Generator,
        **changes: Any,
    ) -> list[float]:
        """Train a network in place; see `clients.training.loop.train`.

        Args:
            model: Without batch norm.
            dataset: Where the inputs are.
            indices: Which of its examples to use [n].
            targets: Row i for `indices[i]`.
            loss: Loss per example.
            rng: Source of all randomness; left as `train` leaves it.
            **changes: Numbers that are not what was bound.

        Returns:
            Mean loss per example of each epoch.

        Raises:
            ValueError: The network has batch norm, or there is too little of something.
            FloatingPointError: Training diverged.
            WorkersLost: It could not be run, however often it was tried.
        """
        size = self.workers
        if (there := self.together.workers.size()) < size:  # another split has other bits
            raise ValueError(f"student_workers={size}: there are only sim.workers={there}")
        device = next(model.parameters()).device
        arguments = (ray.put(model.cpu()), self.together.put(dataset), indices, targets, loss, rng)
        try:
            (host, *_) = self.together.run(
                size,
                _shard_of,
                size,
                {**require_shardable(self.train), **changes},
                *arguments,
                what=lambda lost: f"student: {len(lost)} of {size} workers lost",
            )
        finally:
            model.to(device)
        load_parameters(model, host.parameters)
        rng.bit_generator.state = host.rng_state
        return list(host.losses)


def _shard_of(link: Link, size: int, numbers: dict[str, Any], *arguments: Any, device: str) -> Any:
    return train_shard(link, size, *arguments, device=device, **numbers)
