"""The clients of a federation: who has which examples and which network, and how they train."""

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from clients.data import Dataset, Splits
from clients.data.label_checks import Labels
from clients.data.task import partly_labelled
from clients.execution.executor import Lesson, Place, Trained
from clients.execution.model_cache import Tensors, work_of
from clients.execution.shape_variants import in_turn
from clients.execution.trainer_calls import trained
from clients.messages.codecs import OF_REQUESTS, Codec, codec_of
from clients.models.factory import ModelFunction
from clients.mutual.messenger import Messenger, require_alone
from clients.population.label_conditions import Condition
from clients.population.plugin_arguments import labels_of
from clients.population.profiles import ProfileRule, draw_profiles
from clients.population.shape_plans import Shape, variant_of
from clients.population.views import PHASES, Seeing, View, eyes_of, seen_by
from clients.seeding import Purpose, child_of, generator, stream
from clients.training.local_context import LocalContext, Phase
from clients.training.loop import Trainer
from clients.training.objective import Anchors, Loss, Objective, no_anchors
from clients.training.schedules import of_round
from clients.training.task_objectives import of_task

STUDENT = "(student)"
"""The student's name among the architectures that a place knows."""


class SimulatedClients:
    """All clients of a federation: a description, and the networks that a process builds from it.

    Any process may run any client at any time: nothing of one is kept here.
    """

    def __init__(
        self,
        splits: Splits,
        partitions: Sequence[npt.NDArray[np.int64]],
        architectures: Sequence[str],
        models: dict[str, ModelFunction],
        student: ModelFunction,
        train: Trainer,
        seed: int,
        together: bool = True,
        messenger: Messenger | None = None,
        condition: Condition | None = None,
        profile: ProfileRule | None = None,
        objective: Loss | Objective | None = None,
        view: View | None = None,
        codec: Codec | None = None,
        codec_down: Codec | str | None = None,
        shape: Shape | None = None,
    ) -> None:
        """Describe the federation.

        Args:
            splits: Private, proxy and test sets.
            partitions: Indices into the private set, one array for each of K clients.
            architectures: Name of each client's architecture, one of `models`.
            models: Model functions by architecture name.
            student: The student's, to run it where its parameters are fed back.
            train: `clients.training.loop.train` with its keyword arguments bound.
            seed: The run's seed.
            together: Whether clients that are served together are trained, and asked, in one
                batched step where `clients.execution.policy.way_of` says that this is faster.
            messenger: How a client learns from parameters that it is sent, which are then those of
                a messenger of the student's architecture; None = they become the client's.
            condition: What labels clients learn, where not their own; None = these.
            profile: Draws how fast they are, for the virtual clock; None = there is none.
            objective: What they minimise in local training, for labels; None = the task's loss,
                for which cross-entropy stands too.
            view: What each of them sees of an input; None = the input.
            codec: How parameters that they send travel; None = as they are.
            codec_down: How those that they are sent travel; None = as they are.
            shape: How their networks get shapes of their own; None = as architectures are built.

        Raises:
            ValueError: An objective or a shape is asked for together with messengers, which learn
                by a rule of their own, one class of each input; or profiles or a codec are none.
        """
        task = splits.private.task
        if messenger is not None:
            require_alone(splits.private, objective=objective, shape=shape)
        self.splits, self.partitions = splits, partitions
        self.architectures, self.models, self.student = architectures, models, student
        self.local_training, self.seed, self.together = train, seed, together
        self.messenger, self.condition, self.view = messenger, condition, view
        self.shape, self.codec = shape, codec
        self.codec_down = codec_down and codec_of(codec_down, OF_REQUESTS, "clients.codec_down: ")
        self.learned_task = task if condition is None else partly_labelled(task)
        self.objective = of_task(objective, self.learned_task)
        rng = generator(seed, Purpose.PROFILES)
        self.profiles = draw_profiles(profile, len(architectures), rng)
        self._places: dict[str, Place] = {}
        self.local, self.server_round = dict[int, LocalContext](), 0
        if self.profiles is not None:
            self.forward  # noqa: B018  # here, not where it would draw from a task's generators

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what a process builds for itself."""
        return self.__dict__ | {"_places": {}}

    @cached_property
    def forward(self) -> dict[str, float]:
        """Multiplications of one forward pass of one input, by architecture, STUDENT included."""
        networks, task = {**self.models, STUDENT: self.student}, self.splits.private.task
        return {name: work_of(name, model, task) for name, model in networks.items()}

    def costs(self) -> Callable[[int], float]:
        """Return an estimate of how long a client takes, by its id, in multiplications."""
        return lambda k: self.forward[self.architectures[k]] * len(self.partitions[k])

    def place(self, device: str) -> Place:
        """Return the networks that stay on a device of this process."""
        if device not in self._places:
            networks, task = {**self.models, STUDENT: self.student}, self.splits.private.task
            self._places[device] = Place(networks, task, device, self.local_training, self.together)
        return self._places[device]

    def knowing(self, local: dict[int, LocalContext], server_round: int) -> "SimulatedClients":
        """Return the same for one call: local contexts by client id; its round, 0 = unknown."""
        clients = copy(self)
        clients._places = self._places  # networks stay
        clients.local, clients.server_round = local, server_round
        return clients

    def network_of(self, client_id: int, trained: bool = False) -> str:
        """Name a client's network to a `Place`, as it is or was when it last `trained`."""
        name, local = self.architectures[client_id], self.local.get(client_id)
        if self.shape is None or local is None:
            return name
        return variant_of(self.shape, name, self.models[name], local.plans[int(trained)])

    def run_notes(self) -> list[str]:
        """Say of which architectures, and why, clients train one by one for their objective."""
        return sorted(set[str]().union(*(place.notes for place in self._places.values())))

    def labels(self, client_id: int, server_round: int) -> Labels:
        """Return the labels that a client learns [n], or soft labels [n, C]: by the condition."""
        private, own = self.splits.private, self.partitions[client_id]
        if self.condition is None:
            return private.labels[own]
        whose = self.seed, client_id, server_round
        return labels_of(self.condition, private, self.learned_task, own, *whose)

    def classes(self, client_id: int, server_round: int) -> npt.NDArray[np.int64]:
        """Return the class that a client learns of each example [n]; ValueError if not one each."""
        found = self.labels(client_id, server_round)
        if found.ndim > 1 or found.dtype.kind == "f" or (found < 0).any():
            raise ValueError(
                "clients.condition: its labels are soft or not there, and this method takes one "
                "class of each example"
            )
        return found

    def seen(self, dataset: Dataset, client_id: int, phase: Seeing, server_round: int) -> Dataset:
        """Return a data set as a client sees it, in a round; itself where nobody has a view."""
        if self.view is None:
            return dataset
        turn = PHASES.index(phase)
        key = stream(self.seed, Purpose.VIEW, server_round, client_id, turn)
        return seen_by(self.view, dataset, client_id, phase, key)

    def goal(self, own: Loss | Objective | None) -> Loss | Objective:
        """Return what clients minimise: a method's own objective or the config's, not both."""
        if own is not None and self.objective is not self.learned_task.loss:
            raise ValueError(
                "clients.objective: this method has an objective of its own, and would ignore it"
            )
        return self.objective if own is None else of_task(own, self.learned_task)

    def learn(
        self,
        network: nn.Module,
        client_id: int,
        server_round: int,
        objective: Loss | Objective | None = None,
        anchors: Anchors | None = None,
        **changes: Any,
    ) -> list[float]:
        """Train a network in place on a client's private examples, as the config has it.

        For handlers of one client at a time; `train` is for many.

        Args:
            network: From inputs to what the loss takes.
            client_id: Whose examples.
            server_round: 1..R.
            objective: What is minimised, for labels [B]; None = the config's.
            anchors: What it compares with, on the network's device.
            **changes: Keyword arguments of `clients.training.loop.train` that are not the config's.

        Returns:
            The mean loss of each epoch; ValueError names what trainer or objective keeps.
        """
        labels = torch.from_numpy(self.labels(client_id, server_round))
        rng = generator(self.seed, Purpose.LOCAL_TRAINING, server_round, client_id)
        private = self.seen(self.splits.private, client_id, "train", server_round)
        what = private, self.partitions[client_id], labels, self.goal(objective), rng
        train, local = self.local_training, self.local.get(client_id)
        changes = {**of_round(train, server_round), **changes}
        return trained(train, network, *what, anchors=anchors or {}, local=local, **changes)

    def train(
        self,
        ids: Sequence[int],
        starts: Sequence[Tensors | Exception],
        server_round: int,
        device: str,
        objective: Loss | Objective | None = None,
        anchors: Callable[[int], Anchors] = no_anchors,
        around: Callable[[Loss | Objective], Loss | Objective] | None = None,
        **changes: Any,
    ) -> Iterator[Trained | Exception]:
        """Train clients of one architecture on their private data.

        Args:
            ids: Whom.
            starts: As in `fit`.
            server_round: 1..R.
            device: Where.
            objective: What they minimise, for labels [B]; None = the config's.
            anchors: Client id -> what it compares with, on the device.
            around: What a method adds to the one or the other, such as a penalty.
            **changes: As in `fit`.

        Yields:
            For each client in turn what came of it. ValueError: see `goal`.
        """

        def lesson(client_id: int, start: Tensors) -> Lesson:
            labels = torch.from_numpy(self.labels(client_id, server_round))
            draws = stream(self.seed, Purpose.LOCAL_TRAINING, server_round, client_id)
            return Lesson(start, self.partitions[client_id], labels, draws, anchors(client_id))

        goal = self.goal(objective)
        what = lesson, self.splits.private, goal if around is None else around(goal)
        yield from self.fit(ids, starts, *what, device, phase="train", **changes)

    def fit(
        self,
        ids: Sequence[int],
        starts: Sequence[Tensors | Exception],
        lesson: Callable[[int, Tensors], Lesson],
        dataset: Dataset,
        objective: Loss | Objective,
        device: str,
        *,
        phase: Phase = "digest",
        **changes: Any,
    ) -> Iterator[Trained | Exception]:
        """Train clients of one architecture on anything.

        Args:
            ids: Whom.
            starts: Parameters and buffers that each goes on from, or what kept it from any.
            lesson: Client id, start -> what it is to learn.
            dataset: Where the inputs are.
            objective: What they minimise.
            device: Where.
            phase: What trainers are told that it is.
            **changes: Keyword arguments of `clients.training.loop.train` that are not the config's.

        Yields:
            For each client in turn what came of it.
        """
        lessons = [
            self._beside(lesson(client_id, start), dataset, client_id, phase)
            for client_id, start in zip(ids, starts, strict=True)
            if not isinstance(start, Exception)
        ]
        changes = {**of_round(self.local_training, self.server_round), **changes}
        able = [k for k, s in zip(ids, starts, strict=True) if not isinstance(s, Exception)]
        names, place = [*map(self.network_of, able)], self.place(device)
        if len({*names}) > 1:
            place.tell_apart(self.architectures[ids[0]])
        trained = in_turn(
            names, lessons, lambda name, own: place.fit(name, dataset, own, objective, **changes)
        )
        for start in starts:
            yield start if isinstance(start, Exception) else next(trained)

    def _beside(self, lesson: Lesson, dataset: Dataset, client_id: int, phase: Phase) -> Lesson:
        """Put beside what a client is to learn how it sees it, and what its trainer may know."""
        local, view = self.local.get(client_id), None
        if self.view is not None:
            key = child_of(lesson.stream, Purpose.VIEW)
            view = eyes_of(self.view, dataset, client_id, "train", key)
        return replace(lesson, local=local and local.during(phase), view=view)
