"""From a model function and a seed to a network, and between networks and plain arrays."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from clients.data.task import Task
from clients.seeding import seeded_torch
from clients.signatures import takes

ModelFunction = Callable[..., nn.Module]
"""Makes a network; called with what `offered` has, where it accepts it."""

OFFERED = ("input_shape", "image_shape", "num_classes", "num_tokens", "task")
"""What it may name; there are tokens of some tasks only."""

Parameters = dict[str, npt.NDArray[Any]]
"""A model's parameters and buffers by their names in its state dict."""


def build(
    model: ModelFunction,
    task: Task,
    rng: np.random.Generator,
) -> nn.Module:
    """Build a network whose initial parameters depend on `rng` only.

    Args:
        model: A function of `clients.models`, or any callable that returns a module, such as a
            `torch.nn.Module` class: it is given what `offered` has if it takes that and a partial
            has not bound it.
        task: What it is to predict.
        rng: Source of the initial parameters.

    Returns:
        The network, in train mode, float32, on the CPU; its lazy modules know their shapes.

    Raises:
        ValueError: It is no network, or a lazy module has no shape after a first input.
    """
    bound = model.keywords if isinstance(model, partial) else {}
    with seeded_torch(rng):
        given = {k: v for k, v in offered(task).items() if _takes(model, k)}
        network = model(**{k: v for k, v in given.items() if k not in bound})
        if not isinstance(network, nn.Module):
            raise ValueError(f"gave {type(network).__name__}, expected a torch.nn.Module")
        if any(is_lazy(tensor) for tensor in (*network.parameters(), *network.buffers())):
            with torch.no_grad():  # their shapes, and then their numbers, come with a first input
                network.eval()(task.blank(1))
            if left := [name for name, each in network.named_parameters() if is_lazy(each)]:
                raise ValueError(f"lazy '{left[0]}' is not reached by an input in eval mode")
            network.train()
    for parameter in network.parameters():
        # A step of every convolutional network of ours is 5 to 40 % faster so, on 8x8 images too.
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def offered(task: Task) -> dict[str, Any]:
    """Return what a model function may ask for by name.

    Args:
        task: What its network is to predict.

    Returns:
        `input_shape`, and `image_shape`, the same; `num_classes`, how many numbers its network
        gives of an input, or of each site of one; `num_tokens`, where inputs are tokens; `task`.
    """
    shape = task.input_shape
    found = {"input_shape": shape, "image_shape": shape, "num_classes": task.output_shape[0]}
    tokens = {} if task.num_tokens is None else {"num_tokens": task.num_tokens}
    return {**found, **tokens, "task": task}


def _takes(model: ModelFunction, name: str) -> bool:
    """Tell whether to offer it; to a function that takes anything, an image's shape and classes."""
    if name in ("image_shape", "num_classes"):
        return takes(model, name)
    own = inspect.signature(model).parameters.get(name)  # one with a default may mean another thing
    return own is not None and (own.default is own.empty or name != "task")


def parameters_of(model: nn.Module) -> Parameters:
    """Copy a model's parameters and buffers into numpy arrays."""
    return {k: v.detach().cpu().numpy().copy() for k, v in model.state_dict().items()}


def load_parameters(model: nn.Module, parameters: Mapping[str, npt.NDArray[Any]]) -> None:
    """Copy arrays into a model of the same architecture.

    Args:
        model: Receives the values.
        parameters: As `parameters_of` gives them.

    Raises:
        ValueError: Names or shapes are those of another architecture.
    """
    if difference := unlike(model, parameters):
        raise ValueError(f"parameters do not fit {type(model).__name__}: {difference}")
    model.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in parameters.items()})


def unlike(
    model: nn.Module, parameters: Mapping[str, npt.NDArray[Any] | torch.Tensor]
) -> str | None:
    """Say how `parameters` differ from the model's in names or shapes; None if they fit."""
    mine = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    theirs = {k: tuple(v.shape) for k, v in parameters.items()}
    for name in [*mine, *theirs]:
        if mine.get(name) != theirs.get(name):
            return (
                f"'{name}' is {mine.get(name, 'absent')} in the model and "
                f"{theirs.get(name, 'absent')} in the parameters"
            )
    return None


def buffer_names(model: nn.Module) -> set[str]:
    """Name what a model's state holds beside parameters: running statistics, counters."""
    trained = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return set(model.state_dict()) - trained
