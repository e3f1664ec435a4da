"""Early stopping: the trainer that keeps what was best on labelled examples of its own."""

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from clients.data import Dataset
from clients.training.loop import train
from clients.training.objective import Loss, Objective

Validation = Callable[[nn.Module], float]
"""A network's worth on labelled examples, larger is better."""


def best_on_validation(
    model: nn.Module,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    targets: Tensor,
    objective: Loss | Objective,
    rng: np.random.Generator,
    *,
    validation: Validation,
    patience_steps: Annotated[int, ">= 1"] = 1000,
    every: Annotated[int, ">= 1"] = 100,
    **numbers: Any,
) -> list[float]:
    """Train by `clients.training.loop.train`, with early stopping: the best parameters are kept.

    Args:
        model: As in `train`, like all that follows.
        dataset: Where the inputs are.
        indices: Which of its examples [n].
        targets: Labels [n] or probs [n, C].
        objective: What is minimised.
        rng: Source of all randomness.
        validation: The worth of the network as it is.
        patience_steps: Steps without a gain after which training ends, >= 1.
        every: Steps after which the worth is looked at, >= 1; before the first one it is, too.
        **numbers: Keyword arguments of `train`.

    Returns:
        The mean loss of each epoch that was begun.

    Raises:
        ValueError: A number is out of range.

    Reference: Lin, Kong, Stich, Jaggi, "Ensemble distillation for robust model fusion in federated
    learning", NeurIPS 2020 (arXiv:2006.07242): 1,000 and 100 steps.
    """
    if patience_steps < 1 or every < 1:
        raise ValueError(f"patience_steps={patience_steps}, every={every}: expected >= 1")
    best, kept, waited = validation(model), _copied(model), 0

    def watch() -> bool:
        nonlocal best, kept, waited
        waited += every
        if (worth := validation(model)) > best:
            best, kept, waited = worth, _copied(model), 0
        return waited >= patience_steps

    numbers |= {"watch": watch, "watch_every": every}
    losses = train(model, dataset, indices, targets, objective, rng, **numbers)
    if validation(model) <= best:  # the last steps may be between two looks
        model.load_state_dict(kept)
    return losses


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
