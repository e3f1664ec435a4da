"""Where networks are: clients train and answer there, one by one or like ones in one step."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from clients.data import Dataset, Task, viewed
from clients.execution.batched_loop import predict_together, train_together
from clients.execution.group_batches import View
from clients.execution.isolation import keeps_nothing
from clients.execution.model_cache import Networks, Tensors
from clients.execution.policy_cache import Policies
from clients.execution.shape_variants import keep_last
from clients.execution.stack import Stack, Way
from clients.execution.trainer_calls import in_place_of_steps, numbers_of, trained
from clients.models.factory import ModelFunction, Parameters
from clients.training.local_context import LocalContext
from clients.training.loop import Trainer
from clients.training.objective import Anchors, Loss, Objective, as_objective
from clients.training.optimizer_steps import of_torch
from clients.training.single_gradients import half_precision

MOST_LOGITS = 16 * 2**20
"""Logits that are in memory at once when clients answer together: 64 MiB."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a client is to learn.

    Attributes:
        start: Parameters and buffers that it goes on from.
        indices: Which examples it uses [n].
        targets: What the loss compares with, row i for `indices[i]`: labels [n] or probs [n, C].
        stream: Source of all randomness.
        anchors: What the objective compares with beside `start`, on the device.
        local: What its trainer may know and keep; None where it does not ask.
        view: What it does to inputs as it looks at them; None = nothing.
    """

    start: Tensors
    indices: npt.NDArray[np.int64]
    targets: Tensor
    stream: np.random.SeedSequence
    anchors: Anchors = field(default_factory=dict)
    local: LocalContext | None = None
    view: View | None = None


@dataclass(frozen=True, eq=False)
class Trained:
    """What training left: parameters and buffers, and the mean loss of each epoch."""

    parameters: Parameters
    losses: list[float]


@dataclass(frozen=True, eq=False)
class Answered:
    """What a network said of N examples, float32 on the CPU.

    Attributes:
        logits: [N, classes], or rows of another task [N*S, C].
        taps: Features [N, ...] at the places that were asked for.
    """

    logits: Tensor
    taps: Mapping[str, Tensor] = field(default_factory=dict)


class Place:
    """Networks, and stacks of networks, that stay on a device of this process for all clients."""

    def __init__(
        self,
        models: Mapping[str, ModelFunction],
        task: Task,
        device: str,
        train: Trainer,
        together: bool,
    ) -> None:
        """Describe what may be asked for; each network is built when it first is.

        Args:
            models: Model functions by the name of the architecture.
            task: What they are to predict.
            device: Where the networks live.
            train: `clients.training.loop.train` with its keyword arguments bound.
            together: Whether like clients are trained in one batched step where
                `clients.execution.policy.way_of` says so, and `train` is nobody else's.
        """
        ours = numbers_of(train)
        strange = ours is None or not of_torch(ours["optimizer"])
        self._autocast = None if ours is None else ours.get("autocast")
        self.networks = Networks(models, task, device, strange, self._autocast)
        self._task = task
        self._train = train
        self._numbers = ours if together else None
        optimizer = None if self._numbers is None else self._numbers["optimizer"]
        self._policies = Policies(self.networks, task, optimizer)
        self._stacks: dict[str, Stack] = {}

    def fit(
        self,
        name: str,
        dataset: Dataset,
        lessons: Sequence[Lesson],
        objective: Loss | Objective,
        **changes: Any,
    ) -> Iterator[Trained | Exception]:
        """Train clients of one architecture.

        Args:
            name: Of the architecture.
            dataset: Where the inputs are.
            lessons: For each client.
            objective: What they minimise.
            **changes: Keyword arguments of `train` that are not what was bound.

        Yields:
            For each client in turn what came of it.
        """
        together, error = None, None
        if len(lessons) > 1 and (way := self._policies.way(name)) is not None:
            try:
                together = self._together(name, way, dataset, lessons, objective, changes)
            except Exception as found:  # of one of them, such as parameters of another network
                error = found  # one by one they tell whose it is
        if together is not None:
            yield from together
            return
        alone = (self._alone(name, dataset, each, objective, changes) for each in lessons)
        yield from self._policies.one_by_one(name, alone, error)

    def answers(
        self,
        name: str,
        parameters: Sequence[Tensors],
        dataset: Dataset,
        indices: npt.NDArray[np.int64],
        taps: Sequence[str] = (),
        seen: Sequence[Dataset] = (),
    ) -> Iterator[Answered | Exception]:
        """Let networks of one architecture answer the same examples.

        Args:
            name: Of the architecture.
            parameters: Each network's parameters and buffers.
            dataset: Where the inputs are.
            indices: Which of its examples all answer [N].
            taps: Places of the network whose features are wanted, too; if any, they answer one by
                one.
            seen: The data set as each sees it, where they do not see alike; one by one, too.

        Yields:
            Of each in turn what it answers, or what kept it from an answer.
        """
        several = len(parameters) > 1 and not taps and not seen
        way = self._policies.way(name) if several else None
        most = max(1, MOST_LOGITS // max(1, len(indices) * math.prod(self._task.output_shape)))
        for start in range(0, len(parameters), most):
            few = parameters[start : start + most]
            logits = None if way is None else self._asked_together(name, way, few, dataset, indices)
            if isinstance(logits, Tensor):
                yield from (Answered(dataset.task.answers(own)) for own in logits)
                continue
            sets = seen[start:] if seen else [dataset] * len(few)
            pairs = zip(few, sets, strict=False)
            alone = (self._answer(name, own, what, indices, taps) for own, what in pairs)
            yield from self._policies.one_by_one(name, alone, logits)

    @property
    def notes(self) -> set[str]:
        """Why clients train one by one whose architecture would let them train together."""
        return self._policies.notes

    def tell_apart(self, name: str) -> None:
        """Note that clients of an architecture have shapes of their own, if it matters."""
        if self._policies.way(name) is not None:
            self._policies.note(name, "networks of several shapes (clients.shape) share no step")

    # --- steps ---

    def _together(
        self,
        name: str,
        way: Way,
        dataset: Dataset,
        lessons: Sequence[Lesson],
        objective: Loss | Objective,
        changes: dict[str, Any],
    ) -> Iterator[Trained | Exception] | None:
        """Train clients in one batched step; None where they cannot be."""
        numbers = {**(self._numbers or {}), **in_place_of_steps(self._train, changes)}
        stops = numbers.pop("stop_below", None) is not None
        if stops or (numbers.get("scheduler") and numbers.get("scheduler_by") == "epoch"):
            key = "stop_below" if stops else "scheduler_by=epoch"
            self._policies.note(name, f"clients.training.{key}: epochs of theirs are unlike")
            return None
        with keeps_nothing(**self._plugins(objective)):
            what = as_objective(objective), lessons[0].anchors, lessons[0].targets
            if not self._policies.bear(name, way, *what):
                return None
            stack = self._loaded(name, way, [lesson.start for lesson in lessons])
            outcomes = train_together(
                stack,
                dataset,
                [lesson.indices for lesson in lessons],
                [lesson.targets for lesson in lessons],
                objective,
                [np.random.default_rng(lesson.stream) for lesson in lessons],
                anchors=[lesson.anchors for lesson in lessons],
                views=[lesson.view for lesson in lessons],
                **numbers,
            )
        if stack.exchanged():
            return None
        return (
            outcome
            if isinstance(outcome, Exception)
            else Trained(stack.parameters_of(member), outcome)
            for member, outcome in enumerate(outcomes)
        )

    def _asked_together(
        self,
        name: str,
        way: Way,
        parameters: Sequence[Tensors],
        dataset: Dataset,
        indices: npt.NDArray[np.int64],
    ) -> Tensor | Exception | None:
        """Let networks answer in one batched step; None as in `_together`, or what was raised."""
        try:
            stack = self._loaded(name, way, parameters)
            with half_precision(self._autocast, stack.device):
                logits = predict_together(stack, len(parameters), dataset, indices)
            return None if stack.exchanged() else logits
        except Exception as error:  # of one of them, as in `fit`
            return error

    def _alone(
        self,
        name: str,
        dataset: Dataset,
        lesson: Lesson,
        objective: Loss | Objective,
        changes: dict[str, Any],
    ) -> Trained | Exception:
        try:
            model = self.networks.loaded(name, lesson.start)
            rng = np.random.default_rng(lesson.stream)
            seen = dataset if lesson.view is None else viewed(dataset, lesson.view)
            what = seen, lesson.indices, lesson.targets, objective, rng
            anchors, local = lesson.anchors, lesson.local
            losses = trained(self._train, model, *what, anchors=anchors, local=local, **changes)
            return Trained(self.networks.parameters_of(name), losses)
        except Exception as error:  # the client's, not the group's
            return error

    def _answer(
        self,
        name: str,
        parameters: Tensors,
        dataset: Dataset,
        indices: npt.NDArray[np.int64],
        taps: Sequence[str],
    ) -> Answered | Exception:
        try:
            answered = self.networks.predict_and_tap(name, parameters, dataset, indices, taps)
            return Answered(*answered)
        except Exception as error:  # the client's, not the group's
            return error

    def _plugins(self, objective: Loss | Objective) -> dict[str, Any]:
        return {"clients.training": self._train, **as_objective(objective).plugins}

    def _loaded(self, name: str, way: Way, parameters: Sequence[Tensors]) -> Stack:
        """Return the architecture's stack with these networks in its first places."""
        stack = self._stacks.get(name)
        if stack is None or stack.size < len(parameters):
            how = len(parameters), way, len(self._task.input_shape)
            stack = self._stacks[name] = Stack(self.networks.of(name), *how)
        keep_last(self._stacks, name)
        stack.put_back()
        if all(own is parameters[0] for own in parameters):
            stack.load_all(parameters[0])
        else:
            for member, own in enumerate(parameters):
                stack.load(member, own)
        return stack
