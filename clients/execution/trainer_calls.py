"""Trainers: ours, of which all is known, and anyone's, which is called with what it takes."""

from collections.abc import Sequence
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from clients.data import Dataset
from clients.execution.isolation import keeps_nothing
from clients.signatures import require_given, takes
from clients.training import loop as training
from clients.training.local_context import LocalContext
from clients.training.loop import Trainer
from clients.training.objective import Anchors, Loss, Objective, as_objective


def trained(
    train: Trainer,
    model: nn.Module,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    targets: Tensor,
    objective: Loss | Objective,
    rng: np.random.Generator,
    *,
    anchors: Anchors,
    local: LocalContext | None = None,
    **changes: Any,
) -> list[float]:
    """Train a network in place by anyone's trainer, which may keep nothing.

    Args:
        train: `clients.training.loop.train` with its keyword arguments bound, or another's, which
            is given anchors if it takes them, and `local` if it names that.
        model: As in `train`, like all that follows.
        dataset: Where the inputs are.
        indices: Which of its examples [n].
        targets: Labels [n] or probs [n, C].
        objective: What is minimised.
        rng: Source of all randomness.
        anchors: What the objective compares with.
        local: What the trainer may know and keep of the client; None = nothing.
        **changes: Keyword arguments that are not what was bound.

    Returns:
        The mean loss of each epoch.

    Raises:
        ValueError: Trainer or objective keeps something, or the trainer knows losses only.
    """
    changes = in_place_of_steps(train, changes)
    if isinstance(objective, Objective):
        require_objectives(train, "clients.training")
        changes["anchors"] = anchors
    with keeps_nothing(**{"clients.training": train, **as_objective(objective).plugins}):
        told = train if local is None else local.told(train)
        losses = told(model, dataset, indices, targets, objective, rng, **changes)
    if not isinstance(losses, Sequence) or not all(isinstance(each, Real) for each in losses):
        found = f"{type(losses).__name__} {losses}"[:60]
        raise ValueError(
            f"clients.training returned {found}, expected a list: the mean loss of each epoch"
        )
    return list(losses)


def in_place_of_steps(train: Trainer, changes: dict[str, Any]) -> dict[str, Any]:
    """Let epochs that a method asks for count where the config counts steps; return both."""
    bound = train.keywords if isinstance(train, partial) else {}
    counts = {"epochs", "steps"} & changes.keys() == {"epochs"} and bound.get("steps") is not None
    return {**changes, "steps": None} if counts else changes


def require_objectives(train: Trainer, section: str) -> None:
    """Refuse a trainer that knows losses of logits only.

    Args:
        train: Anyone's.
        section: Of the config, for errors.

    Raises:
        ValueError: It takes no anchors; names it.
    """
    if not takes(train, "anchors"):
        function = train.func if isinstance(train, partial) else train
        raise ValueError(
            f"{section}: {getattr(function, '__name__', type(function).__name__)} takes no "
            "objectives, only losses: expected an argument 'anchors', as "
            "clients.training.loop.train has it"
        )


PLACES = 6
"""Arguments by position: model, dataset, indices, targets, objective, rng."""

OFFERED = ("anchors", "local")
"""What a trainer gets by name if it names it, beside what the config binds."""


def require_offered(train: Trainer, section: str, *more: str) -> None:
    """Refuse a trainer that needs what nobody gives it.

    Args:
        train: Anyone's.
        section: Of the config, for errors.
        *more: Names of what it is offered beside OFFERED.

    Raises:
        ValueError: It has such an argument; names it.
    """
    require_given(train, PLACES, (*OFFERED, *more), section)


def numbers_of(train: Trainer) -> dict[str, Any] | None:
    """Return the keyword arguments bound to `training.loop.train`; None if it is another's."""
    if isinstance(train, partial) and train.func is training.train and not train.args:
        return dict(train.keywords)
    return None
