"""Teaching the student as one of a group of peers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args

import numpy as np
import torch
from flwr.app import ConfigRecord, RecordDict
from torch import Tensor, nn

from clients.data import Dataset
from clients.messages.arrays import read_arrays, write_arrays
from clients.models.factory import ModelFunction, Parameters, load_parameters, parameters_of
from clients.mutual.group import GroupLesson, GroupState, Head, Peer, Snapshot, Update
from clients.mutual.group_heads import HeadFunction
from clients.mutual.group_process import exchanged_bytes
from clients.mutual.lockstep import TrainPeers
from clients.mutual.rehearsal import rehearse_group
from clients.mutual.terms import Rule
from clients.training.optimizer_steps import Optimizer
from clients.training.schedules import Scheduler

STUDENT, HEAD, PEER = "global_student", "head", "peer/"
KEY = "strategy.teaching"


@dataclass(frozen=True, eq=False)
class GroupRecipe:
    """How a group of peers learns.

    Attributes:
        rule: One of `clients.mutual.rules`, its numbers bound.
        optimizer: Makes each peer's optimiser.
        epochs: Passes of the group over the distilled examples in each round, >= 0.
        batch_size: Examples per step, >= 1.
        head: One of `clients.mutual.group_heads`, what the group learns beside; None = nothing.
        head_optimizer: Makes the head's optimiser; None = `optimizer`.
        taps: Where features are taken, by architecture, "global_student" for the student; elsewhere
            from the last feature map. None = there everywhere.
        update: Whether peers step at once or in turn.
        refresh_epochs: Every so many epochs stale answers are refreshed; None = never.
        scheduler: Of all learning rates, turned by the epochs of all rounds; None = they stay.
    """

    rule: Rule
    optimizer: Optimizer
    epochs: Annotated[int, ">= 0"]
    batch_size: Annotated[int, ">= 1"]
    head: HeadFunction | None = None
    head_optimizer: Optimizer | None = None
    taps: dict[str, str] | None = None
    update: Update = "simultaneous"
    refresh_epochs: Annotated[int, ">= 1, or null for never"] | None = None
    scheduler: Scheduler | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be; ValueError names the key."""
        if self.taps and self.head is None:
            raise ValueError(
                f"{KEY}.taps: nobody looks at features where there is no head; take a rule with "
                "one (strategy=ffl, one, okddip) or set no taps"
            )
        if self.update not in get_args(Update):
            expected = " or ".join(get_args(Update))
            raise ValueError(f"{KEY}.update={self.update}: expected {expected}")

    @property
    def numbers(self) -> dict[str, Any]:
        """What all lessons of a group have in common, by the names that `GroupLesson` has."""
        head = None if self.head is None else Head(self.head, self.head_optimizer or self.optimizer)
        return {
            **{"rule": self.rule, "head": head, "epochs": self.epochs, "update": self.update},
            **{"batch_size": self.batch_size, "refresh_epochs": self.refresh_epochs},
            "scheduler": self.scheduler,
        }


class GroupTeaching:
    """Teaches the student as one of a group; remembers what the peers, and the head, became.

    Attributes:
        learned: Parameters of each peer after its last lesson, by its key.
        group: Of this round, as it has learnt; None = it has not yet.
    """

    def __init__(
        self,
        recipe: GroupRecipe,
        models: Mapping[str, ModelFunction],
        student_model: ModelFunction,
        train_peers: TrainPeers,
        seed: int,
    ) -> None:
        """Begin before the first round.

        Args:
            recipe: How the group learns.
            models: Model functions of the clients' architectures by name.
            student_model: The student's.
            train_peers: Trains a group, here or over workers: `mutual.lockstep.train_peers`.
            seed: The run's.

        Raises:
            ValueError: An architecture has the student's or the head's name, or a tap's is not
                there; names the key.
        """
        if taken := {STUDENT, HEAD} & set(models):
            raise ValueError(
                f"clients.architectures.{min(taken)}: among peers the {min(taken).split('_')[-1]} "
                "itself has this name; give the architecture another"
            )
        self._taps = dict(recipe.taps or {})
        if unknown := set(self._taps) - {*models, STUDENT}:
            raise ValueError(
                f"{KEY}.taps.{min(unknown)}: no such peer; expected one of "
                f"{', '.join([*models, STUDENT])}"
            )
        self._models = {**models, STUDENT: student_model}
        self._train_peers = train_peers
        self._optimizer = recipe.optimizer
        self._numbers = {**recipe.numbers, "seed": seed}
        self._next: tuple[int, dict[str, Parameters], dict[str, str]] = (0, {}, {})
        self._head_of: tuple[list[str], Parameters] | None = None
        self._bytes = 0
        self.learned: dict[str, Parameters] = {}
        self.group: tuple[GroupLesson, GroupState] | None = None

    def invite(
        self, server_round: int, starts: dict[str, Parameters], architectures: dict[str, str]
    ) -> None:
        """Say who the peers of a round are, beside the student.

        Args:
            server_round: 1..R.
            starts: Parameters that each goes on from, by its key.
            architectures: Name of each one's architecture, by its key.
        """
        self._next = (server_round, starts, architectures)
        self.group = None  # until it has learnt

    def rehearse(
        self, architectures: Mapping[str, str], dataset: Dataset, num_examples: int
    ) -> None:
        """See that rule, head and taps fit each other in a group of such peers and the student.

        Args:
            architectures: Name of each one's architecture, by its key.
            dataset: Gives image shape and classes.
            num_examples: How many there are to learn from, >= 1.

        Raises:
            ValueError: They do not; names the key.
        """
        names = {**architectures, STUDENT: STUDENT}
        nothing = torch.zeros(num_examples, dataset.task.num_classes)
        lesson = self._lesson(0, names, np.arange(num_examples), nothing)
        rehearse_group(lesson, dataset, "strategy", KEY)

    def teach(
        self,
        student: nn.Module,
        proxy: Dataset,
        ids: np.ndarray[Any, np.dtype[np.int64]],
        targets: Tensor,
    ) -> list[float]:
        """Train the group of a round, the student, in place, as its last peer.

        Args:
            student: The global student.
            proxy: Where the inputs are.
            ids: Which of them to use [n].
            targets: Soft labels [n, C].

        Returns:
            The student's mean loss of each epoch.
        """
        server_round, starts, architectures = self._next
        names = {key: architectures[key] for key in sorted(starts)} | {STUDENT: STUDENT}
        lesson = self._lesson(server_round, names, ids, targets)
        begun = [*(starts[key] for key in sorted(starts)), parameters_of(student)]
        head = None  # one of other architectures has other shapes
        if self._head_of is not None and self._head_of[0] == [*names.values()]:
            head = Snapshot(self._head_of[1])
        start = GroupState(tuple(Snapshot(parameters) for parameters in begun), head)
        state = self._train_peers(lesson, start, proxy)
        load_parameters(student, state.peers[-1].parameters)
        pairs = zip(sorted(starts), state.peers[:-1], strict=True)
        self.learned |= {key: peer.parameters for key, peer in pairs}
        if state.head is not None:
            self._head_of = ([*names.values()], state.head.parameters)
        self.group = (lesson, state)
        self._bytes = exchanged_bytes(lesson, proxy, range(len(lesson.peers)))
        if not lesson.epochs:
            return []
        own = state.losses[:, len(begun) - 1]
        return [float(each.mean()) for each in own.reshape(lesson.epochs, -1)]

    def metrics(self) -> dict[str, float]:
        """Return each peer's mean loss of the last epoch, and what they say to each other in bytes.

        Bytes as if each peer had a process of its own: they do not depend on how many there were.
        """
        if self.group is None:
            return {}
        lesson, state = self.group
        steps = len(state.losses) // max(1, lesson.epochs)
        last = state.losses[len(state.losses) - steps :]
        pairs = zip(lesson.peers, last.T, strict=False)  # the last column is the head's
        named = {f"peer-loss-{peer.name}": float(own.mean()) for peer, own in pairs if steps}
        return named | {"peer-bytes": self._bytes}

    def models(self) -> dict[str, Parameters]:
        """Return what the peers, and the head if there is one, have become, by name."""
        head = {} if self._head_of is None else {HEAD: self._head_of[1]}
        return self.learned | head

    def state(self) -> RecordDict:
        """Return the head, and what goes back to the clients."""
        state = RecordDict({PEER + k: write_arrays(own) for k, own in self.learned.items()})
        if self._head_of is not None:
            state[HEAD] = write_arrays(self._head_of[1])
            state[f"{HEAD}-of"] = ConfigRecord({"architectures": self._head_of[0]})
        return state

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""
        arrays = dict(state.array_records.items())
        if HEAD in arrays:
            names: Any = state.config_records[f"{HEAD}-of"]["architectures"]
            self._head_of = ([*names], read_arrays(arrays.pop(HEAD)))
        self.learned = {name.removeprefix(PEER): read_arrays(r) for name, r in arrays.items()}

    def _lesson(
        self,
        server_round: int,
        names: Mapping[str, str],
        ids: np.ndarray[Any, np.dtype[np.int64]],
        targets: Tensor,
    ) -> GroupLesson:
        """Say what a group learns in a round: peers by key, each with its architecture."""
        return GroupLesson(
            peers=tuple(self._peer(key, name) for key, name in names.items()),
            ids=ids,
            targets=targets,
            key=(server_round, 0),
            first_epoch=(server_round - 1) * self._numbers["epochs"],
            **self._numbers,
        )

    def _peer(self, key: str, name: str) -> Peer:
        return Peer(key, self._models[name], self._optimizer, self._taps.get(name))
