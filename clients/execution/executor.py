"""Where networks are: clients train and answer there, one by one or like ones in one step."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from clients.data import Dataset
from clients.execution.batched_loop import predict_together, train_together
from clients.execution.isolation import keeps_nothing
from clients.execution.model_cache import Networks, Tensors
from clients.execution.policy import way_of
from clients.execution.stack import Stack, Way
from clients.models.factory import ModelFunction, Parameters
from clients.training import loop as training
from clients.training.evaluation import predict_with_features
from clients.training.loop import Loss, Trainer
from clients.training.optimizers import of_torch

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
    """

    start: Tensors
    indices: npt.NDArray[np.int64]
    targets: Tensor
    stream: np.random.SeedSequence


@dataclass(frozen=True, eq=False)
class Trained:
    """What training left: parameters and buffers, and the mean loss of each epoch."""

    parameters: Parameters
    losses: list[float]


@dataclass(frozen=True, eq=False)
class Answered:
    """What a network said of N examples, float32 on the CPU.

    Attributes:
        logits: [N, classes].
        features: What its classifier saw [N, D], if that was asked for.
    """

    logits: Tensor
    features: Tensor | None


class Place:
    """Networks, and stacks of networks, that stay on a device of this process for all clients."""

    def __init__(
        self,
        models: Mapping[str, ModelFunction],
        image_shape: tuple[int, int, int],
        num_classes: int,
        device: str,
        train: Trainer,
        together: bool,
    ) -> None:
        """Describe what may be asked for; each network is built when it first is.

        Args:
            models: Model functions by the name of the architecture.
            image_shape: (channels, height, width).
            num_classes: C.
            device: Where the networks live.
            train: `clients.training.loop.train` with its keyword arguments bound.
            together: Whether like clients are trained in one batched step where
                `clients.execution.policy.way_of` says so, and `train` is nobody else's.
        """
        ours = numbers_of(train)
        strange = ours is None or not of_torch(ours["optimizer"])
        self.networks = Networks(models, image_shape, num_classes, device, strange)
        self._image_shape = image_shape
        self._num_classes = num_classes
        self._train = train
        self._numbers = ours if together else None
        self._ways: dict[str, Way | None] = {}
        self._stacks: dict[str, Stack] = {}

    def fit(
        self, name: str, dataset: Dataset, lessons: Sequence[Lesson], loss: Loss, **changes: Any
    ) -> Iterator[Trained | Exception]:
        """Train clients of one architecture.

        Args:
            name: Of the architecture.
            dataset: Where the inputs are.
            lessons: For each client.
            loss: Loss per example.
            **changes: Keyword arguments of `train` that are not what was bound.

        Yields:
            For each client in turn what came of it.
        """
        together = None
        if len(lessons) > 1 and (way := self._way(name)) is not None:
            together = self._together(name, way, dataset, lessons, loss, changes)
        if together is None:
            for lesson in lessons:
                yield self._alone(name, dataset, lesson, loss, changes)
        else:
            yield from together

    def answers(
        self,
        name: str,
        parameters: Sequence[Tensors],
        dataset: Dataset,
        indices: npt.NDArray[np.int64],
        features: bool = False,
    ) -> Iterator[Answered | Exception]:
        """Let networks of one architecture answer the same examples.

        Args:
            name: Of the architecture.
            parameters: Each network's parameters and buffers.
            dataset: Where the inputs are.
            indices: Which of its examples all answer [N].
            features: Whether to say what the classifiers saw, too; then they answer one by one.

        Yields:
            Of each in turn what it answers, or what kept it from an answer.
        """
        several = len(parameters) > 1 and not features
        way = self._way(name) if several else None
        most = max(1, MOST_LOGITS // max(1, len(indices) * self._num_classes))
        for start in range(0, len(parameters), most):
            few = parameters[start : start + most]
            logits = None if way is None else self._asked_together(name, way, few, dataset, indices)
            if logits is None:
                for own in few:
                    yield self._answer(name, own, dataset, indices, features)
            else:
                yield from (Answered(own, None) for own in logits)

    # --- steps ---

    def _together(
        self,
        name: str,
        way: Way,
        dataset: Dataset,
        lessons: Sequence[Lesson],
        loss: Loss,
        changes: dict[str, Any],
    ) -> Iterator[Trained | Exception] | None:
        """Train clients in one batched step; None where one by one will tell whose fault it is."""
        try:
            stack = self._loaded(name, way, [lesson.start for lesson in lessons])
            with keeps_nothing(**self._plugins(loss)):
                outcomes = train_together(
                    stack,
                    dataset,
                    [lesson.indices for lesson in lessons],
                    [lesson.targets for lesson in lessons],
                    loss,
                    [np.random.default_rng(lesson.stream) for lesson in lessons],
                    **{**(self._numbers or {}), **changes},
                )
            if stack.exchanged():
                return None
        except Exception:  # of one of them, such as parameters of another architecture
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
    ) -> Tensor | None:
        """Let networks answer in one batched step; None as in `_together`."""
        try:
            stack = self._loaded(name, way, parameters)
            logits = predict_together(stack, len(parameters), dataset, indices)
            return None if stack.exchanged() else logits
        except Exception:
            return None

    def _alone(
        self, name: str, dataset: Dataset, lesson: Lesson, loss: Loss, changes: dict[str, Any]
    ) -> Trained | Exception:
        try:
            model = self.networks.loaded(name, lesson.start)
            indices, targets = lesson.indices, lesson.targets
            rng = np.random.default_rng(lesson.stream)
            with keeps_nothing(**self._plugins(loss)):
                losses = self._train(model, dataset, indices, targets, loss, rng, **changes)
            return Trained(self.networks.parameters_of(name), losses)
        except Exception as error:  # the client's, not the group's
            return error

    def _answer(
        self,
        name: str,
        parameters: Tensors,
        dataset: Dataset,
        indices: npt.NDArray[np.int64],
        features: bool,
    ) -> Answered | Exception:
        try:
            if features:
                model = self.networks.loaded(name, parameters)
                answered = Answered(*predict_with_features(model, dataset, indices))
                self.networks.require_same(name)
                return answered
            return Answered(self.networks.predict(name, parameters, dataset, indices), None)
        except Exception as error:  # the client's, not the group's
            return error

    def _plugins(self, loss: Loss) -> dict[str, Any]:
        return {"clients.training": self._train, "loss": loss}

    def _way(self, name: str) -> Way | None:
        """Decide, once for each architecture, how several of its clients are run."""
        if self._numbers is None:
            return None
        if name not in self._ways:
            # Not one with a client's parameters, or it would depend on whose come first.
            model = self.networks.fresh(name, np.random.default_rng(0))
            self._ways[name] = way_of(model, self._image_shape, self._numbers["optimizer"])[0]
        return self._ways[name]

    def _loaded(self, name: str, way: Way, parameters: Sequence[Tensors]) -> Stack:
        """Return the architecture's stack with these networks in its first places."""
        stack = self._stacks.get(name)
        if stack is None or stack.size < len(parameters):
            stack = self._stacks[name] = Stack(self.networks.of(name), len(parameters), way)
        stack.put_back()
        if all(own is parameters[0] for own in parameters):
            stack.load_all(parameters[0])
        else:
            for member, own in enumerate(parameters):
                stack.load(member, own)
        return stack


def numbers_of(train: Trainer) -> dict[str, Any] | None:
    """Return the keyword arguments bound to `training.loop.train`; None if it is another's."""
    if isinstance(train, partial) and train.func is training.train and not train.args:
        return dict(train.keywords)
    return None
