"""Shapes: networks that clients prune, slice or grow as they train.

A user's own is two functions: one chooses a plan of a network that has been trained, one applies a
plan to a network. The plan is in the client's state, and is all that tells its network from one
that is as its architecture is built.
"""

import hashlib
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clients.data import Dataset, Task, normalised
from clients.execution.isolation import keeps_nothing, lent
from clients.execution.shape_variants import Variant
from clients.models.factory import ModelFunction, Parameters, build, parameters_of, unlike
from clients.seeding import seeded_torch
from clients.signatures import named_of, require_given
from clients.training.local_context import array_of

Plan = Mapping[str, npt.NDArray[Any]]
"""What a network's shape is to be: arrays of numbers by name. Empty: as it is built."""

OFFERED = ("rng", "client_id", "server_round", "note", "plan", "losses")
"""What `choose` gets by name if it names it."""


@dataclass(frozen=True, eq=False)
class Shape:
    """How clients' networks get shapes of their own.

    Attributes:
        choose: `(network, inputs, labels) -> plan`, called when a client has trained on its private
            examples. The network is its own as training left it, in the shape of the plan so far,
            in eval mode; what is done to it is undone. Inputs [n, ...] and labels are all of its
            private examples, on the network's device. It gets what it names of `OFFERED`: `plan`,
            the plan so far, empty at first; `losses`, the mean loss of each epoch; `note`, as of
            `clients.training.local_context`. What it returns is a dict of arrays of numbers by
            name; None, or an equal one, = the shape stays.
        apply: `(network, plan) -> network`, which may change the network in place. It gets the
            network as training left it, and has to carry its values over: what is kept is the state
            dict of what it returns. And it gets the network as the architecture is built, in every
            process and round, into which what was kept is loaded: names and shapes must be the same
            then. So a plan says what is to be there, not what is to go. What it draws from torch's
            generator is seeded.
    """

    choose: Callable[..., Mapping[str, Any] | None]
    apply: Callable[[nn.Module, dict[str, npt.NDArray[Any]]], nn.Module]


def variant_of(shape: Shape, architecture: str, model: ModelFunction, plan: Plan) -> str:
    """Name the network that a plan makes of an architecture's.

    Args:
        shape: Applies it.
        architecture: Its name.
        model: Its model function.
        plan: Of one client.

    Returns:
        A name that knows how to build it; the architecture's own if the plan is empty.
    """
    if not plan:
        return architecture
    name = Variant(f"{architecture} [plan {_digest(plan)}]")
    name.model = partial(_planned, shape, model, plan)
    return name


def chosen(
    shape: Shape,
    network: nn.Module,
    examples: tuple[Tensor, Tensor],
    plan: Plan,
    **offered: Any,
) -> Plan:
    """Let a client choose a plan.

    Args:
        shape: Chooses.
        network: As it has been trained; what is done to it is undone.
        examples: Inputs and labels.
        plan: The one so far.
        **offered: The rest of `OFFERED`.

    Returns:
        The plan; the same object if it stays.

    Raises:
        ValueError: It failed, keeps something, or gives no plan.
    """
    offered["plan"] = {name: np.array(value) for name, value in plan.items()}
    given = {name: offered[name] for name in named_of(shape.choose, dict.fromkeys(offered, dict))}
    try:
        with keeps_nothing(choose=shape.choose), lent(network), torch.enable_grad():
            found = shape.choose(network, *examples, **given)
    except Exception as error:  # anyone's code
        raise ValueError(f"clients.shape.choose: {type(error).__name__}: {error}") from error
    if found is None:
        return plan
    if not isinstance(found, Mapping):
        raise ValueError(
            f"clients.shape.choose gives {type(found).__name__}, expected a dict of arrays"
        )
    other = {
        name: array_of(f"clients.shape.choose: {name!r} of its plan", name, value)
        for name, value in found.items()
    }
    return plan if _digest(other) == _digest(plan) else other


def carried_over(
    shape: Shape, network: nn.Module, wanted: nn.Module, plan: Plan, rng: np.random.Generator
) -> Parameters:
    """Apply a plan to a network that has been trained.

    Args:
        shape: Applies it.
        network: Not changed.
        wanted: The network that the plan makes of the architecture's.
        plan: It.
        rng: Seeds what is drawn.

    Returns:
        All that is in the state dict of what comes of it.

    Raises:
        ValueError: It failed, keeps something, or its shapes are not those that are wanted.
    """
    with seeded_torch(rng):
        parameters = parameters_of(_applied(shape, deepcopy(network), plan))
    if difference := unlike(wanted, parameters):
        raise ValueError(
            "clients.shape.apply: of the network as it is built, and as training left it, a plan "
            f"makes different ones: {difference}"
        )
    return parameters


def require_shape(shape: Shape, architecture: str, model: ModelFunction, private: Dataset) -> None:
    """Try a shape on two examples.

    Args:
        shape: Anyone's.
        architecture: Whose network is tried.
        model: Its model function.
        private: Where the examples are.

    Raises:
        ValueError: It cannot, or needs what nobody gives it; names the key and the architecture.
    """
    require_given(shape.choose, 3, OFFERED, "clients.shape.choose")
    require_given(shape.apply, 2, (), "clients.shape.apply")
    ends, rng = np.array([0, len(private) - 1]), np.random.default_rng(0)
    network = build(model, private.task, rng)
    offered = {"client_id": 0, "server_round": 1, "note": _noted, "losses": [1.0], "rng": rng}
    examples = torch.from_numpy(normalised(private, ends)), torch.from_numpy(private.labels[ends])
    try:
        plan = chosen(shape, network, examples, {}, **offered)
        if isinstance(name := variant_of(shape, architecture, model, plan), Variant):
            wanted = build(name.model, private.task, rng)
            carried_over(shape, network, wanted, plan, rng)
    except ValueError as error:
        raise ValueError(f"{error} (architecture '{architecture}')") from error


# --- steps ---


def _planned(shape: Shape, model: ModelFunction, plan: Plan, task: Task) -> nn.Module:
    """Build an architecture's network, and apply a plan to it: a model function."""
    network = _applied(shape, build(model, task, np.random.default_rng(0)), plan)
    try:
        with torch.no_grad():
            found = tuple(network.eval()(task.blank(1)).shape)
    except Exception as error:  # anyone's network
        raise ValueError(
            f"clients.shape.apply: its network cannot answer: {type(error).__name__}: {error}"
        ) from error
    if found != (expected := (1, *task.output_shape)):
        raise ValueError(
            f"clients.shape.apply: its network answers an input by {found}, expected {expected}"
        )
    return network.train()


def _applied(shape: Shape, network: nn.Module, plan: Plan) -> nn.Module:
    own = {name: np.array(value) for name, value in plan.items()}
    try:
        with keeps_nothing(apply=shape.apply):
            found = shape.apply(network, own)
    except Exception as error:  # anyone's code
        raise ValueError(f"clients.shape.apply: {type(error).__name__}: {error}") from error
    if not isinstance(found, nn.Module):
        raise ValueError(
            f"clients.shape.apply gives {type(found).__name__}, expected a torch.nn.Module"
        )
    return found


def _digest(plan: Plan) -> str:
    found = hashlib.sha256()
    for name, value in sorted(plan.items()):
        found.update(f"{name} {value.dtype.str} {value.shape} ".encode())
        found.update(np.ascontiguousarray(value).tobytes())
    return found.hexdigest()[:16]


def _noted(**numbers: float) -> None:
    """Note nothing: it is only a try."""
