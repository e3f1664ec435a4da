"""Peers that learn in lock-step: the same batch for all, then a step of each.

One text for two placements. Every process of a group runs `run_epoch` for the peers it was given;
the process of rank 0, the host, also runs rule and head. In a step the peers' answers go to the
host, which turns them into a loss, and the gradient with respect to each peer's answer comes back:
as much as an autograd-aware gather would send, and no process waits inside a backward pass. With
all peers in one process nothing is sent, and the arithmetic is the same.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients.data import Dataset, normalised
from clients.execution.isolation import keeps_nothing
from clients.mutual.group import GroupLesson, GroupState, Part, joined
from clients.mutual.group_heads import Shape
from clients.mutual.group_process import Host, Learner, feature_shapes, learner
from clients.seeding import Purpose, generator, torch_seed
from clients.training.batches import batches
from clients.training.evaluation import predict


class Link(Protocol):
    """How the processes of a group send each other numbers; rank 0 is the host."""

    rank: int
    sent_bytes: int

    def send(self, numbers: Tensor, rank: int) -> None:
        """Send float32 numbers [n] to another process."""
        ...

    def receive(self, size: int, rank: int) -> Tensor:
        """Receive float32 numbers [size] from another process."""
        ...

    def total(self, numbers: Tensor) -> Tensor:
        """Add up float32 numbers [n] over all processes; each gets the same sums."""
        ...


class NoLink:
    """A group in one process."""

    rank = 0
    sent_bytes = 0

    def send(self, numbers: Tensor, rank: int) -> None:
        """There is nobody."""
        raise AssertionError("a group in one process sends nothing")

    def receive(self, size: int, rank: int) -> Tensor:
        """There is nobody."""
        raise AssertionError("a group in one process receives nothing")

    def total(self, numbers: Tensor) -> Tensor:
        """Return them: there is nobody."""
        return numbers


TrainPeers = Callable[[GroupLesson, GroupState, Dataset], GroupState]
"""(lesson, start, data set) -> the group afterwards: `train_peers`, or one that spreads them."""


def train_peers(
    lesson: GroupLesson,
    start: GroupState,
    dataset: Dataset,
    device: str = "cpu",
    commit: Callable[[GroupState], None] = lambda state: None,
) -> GroupState:
    """Train a group in this process.

    Args:
        lesson: What to learn.
        start: Where the group goes on from.
        dataset: Where the inputs are.
        device: Where to compute.
        commit: Called after each epoch.

    Returns:
        The group afterwards.

    Raises:
        FloatingPointError: A peer's loss is not finite; says whose, and when.
    """
    state, everyone = start, [0] * len(lesson.peers)
    while state.epoch < lesson.epochs:
        state = joined(state, [run_epoch(lesson, state, everyone, dataset, NoLink(), device)])
        commit(state)
    return state


def run_epoch(
    lesson: GroupLesson,
    state: GroupState,
    places: Sequence[int],
    dataset: Dataset,
    link: Link,
    device: str,
) -> Part:
    """Run one process's share of an epoch, a pure function of its arguments.

    Args:
        lesson: What to learn.
        state: Of the whole group, before the epoch.
        places: Rank of the process that runs each peer [K]; rank 0 has at least one.
        dataset: Where the inputs are.
        link: To the other processes.
        device: Where to compute.

    Returns:
        This process's part.
    """
    peers = {peer.name: [peer.model, peer.optimizer] for peer in lesson.peers}
    head = None if lesson.head is None else [lesson.head.build, lesson.head.optimizer]
    with ExitStack() as stack, keeps_nothing(rule=lesson.rule, head=head, **peers):
        shapes = feature_shapes(lesson, dataset)
        mine = [k for k, rank in enumerate(places) if rank == link.rank]
        learners = {
            k: stack.enter_context(learner(lesson, k, state, dataset, shapes, device)) for k in mine
        }
        group = _Group(lesson, learners, places, shapes, link)
        stale = group.refreshed(state, dataset)
        host = None
        if link.rank == 0:
            host = Host(lesson, state, shapes, dataset.task.num_classes, device)
        rows = []
        for batch in _order(lesson, state.epoch):
            images = torch.from_numpy(normalised(dataset, lesson.ids[batch])).to(device)
            seen = () if stale is None else tuple(torch.from_numpy(stale[:, batch]).to(device))
            rows.append(group.step(images, lesson.targets[batch].to(device), seen, host))
        snapshots = {k: learner.snapshot() for k, learner in learners.items()}
        if host is None:
            return Part(snapshots, sent_bytes=link.sent_bytes)
        losses = torch.stack([row for row in rows if row is not None]).double().cpu().numpy()
        _require_finite(lesson, losses, state.epoch)
        return Part(snapshots, host.snapshot(), stale, losses, link.sent_bytes)


def _order(lesson: GroupLesson, epoch: int) -> Iterator[npt.NDArray[np.int64]]:
    """Draw an epoch's batches: those that `training.loop.train` draws from the same stream."""
    rng = generator(lesson.seed, Purpose.PEER_BATCHES, *lesson.key)
    torch_seed(rng)
    for _ in range(epoch):
        rng.permutation(len(lesson.ids))
    return batches(len(lesson.ids), lesson.batch_size, rng)


def _require_finite(lesson: GroupLesson, losses: npt.NDArray[np.float64], epoch: int) -> None:
    bad = np.argwhere(~np.isfinite(losses))
    if len(bad):
        step, place = bad[0]
        names = [peer.name for peer in lesson.peers] + ["head"]
        raise FloatingPointError(
            f"peer '{names[place]}': loss is {losses[step, place]} in step {step + 1} of epoch "
            f"{epoch + 1}: lower its lr"
        )


# --- the step ---


class _Group:
    """The peers of this process, and who has the others."""

    def __init__(
        self,
        lesson: GroupLesson,
        learners: Mapping[int, Learner],
        places: Sequence[int],
        shapes: Sequence[Shape],
        link: Link,
    ) -> None:
        self._lesson = lesson
        self._learners = learners
        self._places = places
        self._shapes = shapes
        self._link = link
        self._size = shapes[0][1:] if shapes else (1, 1)
        self._num_classes = lesson.targets.shape[1]

    def step(
        self,
        images: Tensor,
        targets: Tensor,
        stale: Sequence[Tensor],
        host: Host | None,
    ) -> Tensor | None:
        """Take one step of every peer; return, on the host, what it cost [K + 1]."""
        answers = {k: own.answer(images, self._size) for k, own in self._learners.items()}
        known = self._to_host(answers, range(len(self._places)), images)
        turns = [[k] for k in range(len(self._places))]
        if self._lesson.update == "simultaneous":
            turns = [[k for (k,) in turns]]
        costs: list[Tensor] = []
        for number, turn in enumerate(turns):
            gradients: list[list[Tensor]] = []
            if host is not None:
                last = number == len(turns) - 1
                everyone = [known[k] for k in range(len(self._places))]
                terms, gradients = host.gradients(everyone, targets, stale, last)
                costs += [terms.peers[k].detach() for k in turn]
                joint = terms.joint
            for k, own in self._from_host(gradients, turn, images).items():
                self._learners[k].learn(own)
            if number < len(turns) - 1:  # in turn: whoever has learnt answers anew
                known |= self._to_host(self._again(turn, images), turn, images)
        if host is None:
            return None
        nothing = torch.zeros((), device=targets.device)
        return torch.stack([*costs, nothing if joint is None else joint.detach()])

    def refreshed(self, state: GroupState, dataset: Dataset) -> npt.NDArray[np.float32] | None:
        """Return the host's stale answers [K, n, C], asked for anew where that is due."""
        every = self._lesson.refresh_epochs
        if every is None or state.epoch % every:
            return state.stale if self._link.rank == 0 else None
        own = {
            k: predict(learner.network, dataset, self._lesson.ids)
            for k, learner in self._learners.items()
        }
        shape = (len(self._lesson.ids), self._num_classes)
        if self._link.rank:
            for logits in own.values():
                self._link.send(logits.flatten(), 0)
            return None
        everyone = [
            own[k] if rank == 0 else self._link.receive(shape[0] * shape[1], rank).cpu().view(shape)
            for k, rank in enumerate(self._places)
        ]
        return torch.stack(everyone).numpy()

    def _again(self, turn: Sequence[int], images: Tensor) -> dict[int, list[Tensor]]:
        mine = [k for k in turn if k in self._learners]
        with torch.no_grad():
            return {k: self._learners[k].answer(images, self._size) for k in mine}

    def _to_host(
        self, answers: Mapping[int, list[Tensor]], who: Sequence[int], images: Tensor
    ) -> dict[int, list[Tensor]]:
        """Give the host what these peers answer; elsewhere return nothing."""
        if self._link.rank:
            for k in sorted(answers):
                self._link.send(_flat(answers[k]), 0)
            return {}
        known = dict(answers)
        for k in who:
            if (rank := self._places[k]) != 0:
                known[k] = self._cut(k, self._link.receive(self._length(k, images), rank), images)
        return known

    def _from_host(
        self, gradients: list[list[Tensor]], turn: Sequence[int], images: Tensor
    ) -> dict[int, list[Tensor]]:
        """Give each of these peers, where it is, the gradient of what it answered."""
        if self._link.rank:
            mine = [k for k in turn if k in self._learners]
            return {
                k: [*self._cut(k, self._link.receive(self._length(k, images), 0), images)]
                for k in mine
            }
        for k in turn:
            if (rank := self._places[k]) != 0:
                self._link.send(_flat(gradients[k]), rank)
        return {k: gradients[k] for k in turn if k in self._learners}

    def _shapes_of(self, k: int, images: Tensor) -> list[tuple[int, ...]]:
        shapes: list[tuple[int, ...]] = [(len(images), self._num_classes)]
        return [*shapes, (len(images), *self._shapes[k])] if self._shapes else shapes

    def _length(self, k: int, images: Tensor) -> int:
        return sum(int(np.prod(shape)) for shape in self._shapes_of(k, images))

    def _cut(self, k: int, numbers: Tensor, images: Tensor) -> list[Tensor]:
        shapes = self._shapes_of(k, images)
        sizes = [int(np.prod(shape)) for shape in shapes]
        parts = torch.split(numbers.to(images.device), sizes)
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().float().reshape(-1) for tensor in tensors])
