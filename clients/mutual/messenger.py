"""A private network and a shared messenger that learn from each other on one client's data.

FML and FedKD: the client keeps its network, of any architecture; what travels, and is averaged, is
the messenger, which all clients have alike.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from clients.data import Dataset
from clients.data.label_checks import Labels
from clients.models.factory import ModelFunction, Parameters
from clients.mutual.group import GroupLesson, GroupState, Head, Peer, Snapshot
from clients.mutual.group_heads import HeadFunction
from clients.mutual.lockstep import train_peers
from clients.mutual.terms import Rule
from clients.training.optimizer_steps import Optimizer

PRIVATE, MESSENGER = "private", "messenger"


@dataclass(frozen=True, eq=False)
class Messenger:
    """How a client and the messenger teach each other.

    Attributes:
        rule: Of two peers, the private network first: `rules.dml`, `rules.adaptive_mutual`.
        optimizer: Makes each one's optimiser.
        epochs: Local epochs, >= 0.
        batch_size: Examples per step, >= 1.
        head: What both learn beside, such as FedKD's projection; None = nothing.
    """

    rule: Rule
    optimizer: Optimizer
    epochs: Annotated[int, ">= 0"]
    batch_size: Annotated[int, ">= 1"]
    head: HeadFunction | None = None


@dataclass(frozen=True, eq=False)
class Pair:
    """Parameters of both networks, and of the head if there is one."""

    private: Parameters
    messenger: Parameters
    head: Parameters | None


def require_alone(private: Dataset, **others: object) -> None:
    """Refuse what clients with a messenger would ignore, and tasks that its rules do not know.

    Args:
        private: The private set, which they learn from as it is.
        **others: Parts of `clients` by name; None = there is none.

    Raises:
        ValueError: Names the part, or the task.
    """
    for name, given in others.items():
        if given is not None:
            raise ValueError(f"clients.{name}: not with clients.messenger, which would ignore it")
    if not private.task.one_class_each:
        raise ValueError(
            f"clients.messenger: its rules learn one class of each input, and the task of "
            f"{private.name} is {private.task.name}: expected a classification"
        )


def learn_together(
    how: Messenger,
    models: tuple[ModelFunction, ModelFunction],
    start: Pair,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    labels: Labels,
    seed: int,
    key: tuple[int, int],
    device: str = "cpu",
) -> tuple[Pair, float]:
    """Train both on the same batches of a client's examples.

    Args:
        how: The rule, and numbers.
        models: Model functions of the private network and of the messenger.
        start: What they go on from.
        dataset: Where the examples are.
        indices: Which are the client's [n].
        labels: What it learns of them: classes [n], -1 = not labelled, or soft labels [n, C].
        seed: The run's.
        key: (round, client).
        device: Where to compute.

    Returns:
        Both afterwards, and the private network's mean loss of the last epoch, 0 without epochs.
    """
    lesson = lesson_of(how, models, dataset, indices, labels, seed, key)
    begun = GroupState(
        (Snapshot(start.private), Snapshot(start.messenger)),
        None if start.head is None else Snapshot(start.head),
    )
    state = train_peers(lesson, begun, dataset, device)
    private, messenger = state.peers
    steps = len(state.losses) // max(1, how.epochs)
    loss = float(state.losses[-steps:, 0].mean()) if steps else 0.0
    head = None if state.head is None else state.head.parameters
    return Pair(private.parameters, messenger.parameters, head), loss


def lesson_of(
    how: Messenger,
    models: tuple[ModelFunction, ModelFunction],
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    labels: Labels,
    seed: int = 0,
    key: tuple[int, int] = (0, 0),
) -> GroupLesson:
    """Say what both learn of examples [n]; arguments as in `learn_together`."""
    targets = torch.tensor(labels)
    if not targets.is_floating_point():
        classes = functional.one_hot(targets.clamp_min(0), dataset.task.num_classes)
        targets = (classes * (targets >= 0)[:, None]).float()
    return GroupLesson(
        peers=(Peer(PRIVATE, models[0], how.optimizer), Peer(MESSENGER, models[1], how.optimizer)),
        rule=how.rule,
        head=None if how.head is None else Head(how.head, how.optimizer),
        ids=indices,
        targets=targets,
        epochs=how.epochs,
        batch_size=how.batch_size,
        seed=seed,
        key=key,
    )
