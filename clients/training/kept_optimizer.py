"""The kept optimiser: the trainer whose momentum and moments stay the client's between rounds."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clients.data import Dataset
from clients.training.local_context import LocalContext
from clients.training.loop import train
from clients.training.objective import Loss, Objective
from clients.training.optimizer_steps import Optimizer


def keep_optimizer(
    model: nn.Module,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    targets: Tensor,
    objective: Loss | Objective,
    rng: np.random.Generator,
    *,
    optimizer: Optimizer,
    local: LocalContext,
    **numbers: Any,
) -> list[float]:
    """Train by `clients.training.loop.train`; the optimiser goes on as it last ended here.

    What is learned of others, in phases but "train", begins with a fresh one. Of a method that
    trains a client twice in a round, as Ditto does, the second training goes on from the first.

    Args:
        model: As in `train`, like all that follows.
        dataset: Where the inputs are.
        indices: Which of its examples [n].
        targets: Labels [n] or probs [n, C].
        objective: What is minimised.
        rng: Source of all randomness.
        optimizer: Any of torch's that keeps tensors and numbers for each parameter.
        local: Keeps these, by their names and the parameter's.
        **numbers: Keyword arguments of `train`.

    Returns:
        The mean loss of each epoch.
    """
    what = model, dataset, indices, targets, objective, rng
    if local.phase != "train":
        return train(*what, optimizer=optimizer, **numbers)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    made: list[torch.optim.Optimizer] = []

    def resumed(parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        parameters = list(parameters)
        found = optimizer(parameters)
        if any(id(parameter) in names for parameter in parameters):  # not a schedule's own
            made.append(found)
            for parameter in parameters:
                if own := _state_of(parameter, names[id(parameter)], local.state):
                    found.state[parameter] = own
        return found

    losses = train(*what, optimizer=resumed, **numbers)
    for each in made:
        for parameter, state in each.state.items():
            for key, value in state.items():
                if value is not None:  # SGD without momentum
                    local.state[f"{key}/{names[id(parameter)]}"] = value
    return losses


def _state_of(parameter: Tensor, name: str, kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an optimiser keeps of a parameter; counts of steps stay on the CPU."""
    found = dict[str, Any]()
    for each, value in kept.items():
        key, _, whose = each.partition("/")
        if whose == name:
            tensor = torch.tensor(np.asarray(value))
            found[key] = tensor.to(parameter.device) if tensor.shape == parameter.shape else tensor
    return found
