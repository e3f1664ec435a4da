"""Optimiser steps over plain lists of tensors.

A `torch.optim` object costs a local step of a small network a third of its time. SGD and Adam,
called as functions, give the same bits; any other optimiser of torch's works through its object,
which is kept from importing torch's compiler, 2 to 4 s in each process, for nobody here compiles.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from functools import cache, partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.adam import adam

for _name in ("add_param_group", "state_dict", "load_state_dict", "zero_grad"):
    # On its first call torch imports the compiler to note here what it is to leave out. Noted
    # before, as it is, nothing is imported; whoever compiles a step of theirs has these few traced.
    if _plain := getattr(getattr(torch.optim.Optimizer, _name), "__wrapped__", None):
        vars(_plain).setdefault("__dynamo_disable", _plain)

Optimizer = Callable[[Iterable[Tensor]], torch.optim.Optimizer]
"""Makes a torch optimiser from parameters, e.g. a partial of `torch.optim.SGD`."""


class Step(Protocol):
    """Updates parameters by one gradient for each, None where there is none.

    `rate` stands in the place of the optimiser's own learning rate; None = that.
    """

    def __call__(self, gradients: Sequence[Tensor | None], rate: float | None = None) -> None:
        """Take a step."""


SGD_OPTIONS = {"lr", "momentum", "dampening", "weight_decay", "nesterov"}
ADAM_OPTIONS = {"lr", "betas", "eps", "weight_decay", "amsgrad"}


def stepper(optimizer: Optimizer, parameters: Sequence[Tensor]) -> Step:
    """Prepare fresh optimiser steps for some parameters.

    Args:
        optimizer: Which optimiser, and its numbers.
        parameters: What is to be updated in place.

    Returns:
        The step. It keeps the optimiser's state, so use one for one training.

    Raises:
        ValueError: A number is out of range.
    """
    options = optimizer.keywords if isinstance(optimizer, partial) else {}
    kind = optimizer.func if isinstance(optimizer, partial) and not optimizer.args else optimizer
    if kind is torch.optim.SGD and set(options) <= SGD_OPTIONS:
        return _sgd_step(parameters, **_complete(kind, SGD_OPTIONS, options))
    if kind in (torch.optim.Adam, torch.optim.AdamW) and set(options) <= ADAM_OPTIONS:
        decoupled = kind is torch.optim.AdamW
        return _adam_step(parameters, decoupled, **_complete(kind, ADAM_OPTIONS, options))
    return object_step(parameters, optimizer(parameters))


def require_steps(optimizer: Optimizer, parameters: Sequence[Tensor], section: str) -> None:
    """Try an optimiser, but for one that is made for a GPU's graphs, on gradients of one.

    Args:
        optimizer: Which one, and its numbers.
        parameters: To be thrown away: they are moved.
        section: Of the config, for errors.

    Raises:
        ValueError: There is nothing to train, or it does not bear it, or wants more than gradients.
    """
    if not parameters:
        raise ValueError(f"{section}: no parameter requires a gradient: expected at least one")
    if isinstance(optimizer, partial) and optimizer.keywords.get("capturable"):
        return
    try:
        step = stepper(deepcopy(optimizer), parameters)  # a state must not see a try
        step([torch.ones_like(parameter) for parameter in parameters])
    except Exception as error:  # any of torch's, or anyone's
        raise ValueError(f"{section}: {type(error).__name__}: {error}") from error


def elementwise(optimizer: Optimizer) -> bool:
    """Tell whether an optimiser updates each number by its own gradient and state alone.

    Only then may the parameters of several clients be stacked and stepped as one.
    """
    kind = optimizer.func if isinstance(optimizer, partial) else optimizer
    kinds = ("SGD", "Adam", "AdamW", "Adamax", "Adadelta", "Adagrad", "NAdam", "RAdam", "RMSprop")
    return kind in {getattr(torch.optim, name) for name in kinds}


def of_torch(optimizer: Optimizer) -> bool:
    """Tell whether an optimiser is torch's own code, whatever numbers are bound to it."""
    kind = optimizer.func if isinstance(optimizer, partial) else optimizer
    return str(getattr(kind, "__module__", "")).startswith("torch.optim.")


def _complete(kind: Any, names: set[str], options: dict[str, Any]) -> dict[str, Any]:
    """Fill in torch's own defaults, and refuse what torch refuses."""
    defaults = _defaults(kind, *sorted(names))
    complete = {name: options.get(name, default) for name, default in defaults}
    for name in ("lr", "momentum", "weight_decay", "eps"):
        if name in complete and not complete[name] >= 0:
            raise ValueError(f"optimizer.{name}={complete[name]}: expected >= 0")
    if not all(0 <= beta < 1 for beta in complete.get("betas", ())):
        raise ValueError(f"optimizer.betas={complete['betas']}: expected two numbers in [0, 1)")
    if complete.get("nesterov") and (complete["momentum"] <= 0 or complete["dampening"] != 0):
        raise ValueError("optimizer.nesterov=true: expected momentum > 0 and dampening = 0")
    return complete


@cache
def _defaults(kind: Any, *names: str) -> tuple[tuple[str, Any], ...]:
    parameters = inspect.signature(kind).parameters
    return tuple((name, parameters[name].default) for name in names)


def _sgd_step(
    parameters: Sequence[Tensor],
    *,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
) -> Step:
    """Do what torch.optim.SGD does, in at most four calls for all parameters together."""
    velocities: dict[int, Tensor] = {}

    @torch.no_grad()
    def step(gradients: Sequence[Tensor | None], rate: float | None = None) -> None:
        chosen = [i for i, gradient in enumerate(gradients) if gradient is not None]
        values: list[Tensor] = [parameters[i] for i in chosen]
        moves = [gradient for gradient in gradients if gradient is not None]
        if weight_decay:
            moves = list(torch._foreach_add(moves, values, alpha=weight_decay))
        if momentum:
            moving = [velocities[i] for i in chosen if i in velocities]
            if moving:
                pushes = [move for i, move in zip(chosen, moves, strict=True) if i in velocities]
                torch._foreach_mul_(moving, momentum)
                torch._foreach_add_(moving, pushes, alpha=1 - dampening)
            for i, move in zip(chosen, moves, strict=True):
                if i not in velocities:  # like torch's, a first velocity is not dampened
                    velocities[i] = move.clone()
            kept = [velocities[i] for i in chosen]
            moves = list(torch._foreach_add(moves, kept, alpha=momentum)) if nesterov else kept
        torch._foreach_add_(values, moves, alpha=-(lr if rate is None else rate))

    return step


def _adam_step(
    parameters: Sequence[Tensor],
    decoupled: bool,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    amsgrad: bool,
) -> Step:
    """Call torch's own functional Adam, whose object only keeps these lists."""
    first, second, largest = ([torch.zeros_like(p) for p in parameters] for _ in range(3))
    steps = [torch.zeros(()) for _ in parameters]

    @torch.no_grad()
    def step(gradients: Sequence[Tensor | None], rate: float | None = None) -> None:
        chosen = [i for i, gradient in enumerate(gradients) if gradient is not None]
        adam(
            [parameters[i] for i in chosen],
            [gradient for gradient in gradients if gradient is not None],
            [first[i] for i in chosen],
            [second[i] for i in chosen],
            [largest[i] for i in chosen],
            [steps[i] for i in chosen],
            foreach=True,
            decoupled_weight_decay=decoupled,
            amsgrad=amsgrad,
            beta1=betas[0],
            beta2=betas[1],
            lr=lr if rate is None else rate,
            weight_decay=weight_decay,
            eps=eps,
            maximize=False,
        )

    return step


def object_step(parameters: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> Step:
    """Return steps of a torch optimiser that was made for these parameters."""
    take = _uncompiled_step(optimizer)

    def step(gradients: Sequence[Tensor | None], rate: float | None = None) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        if rate is not None:
            for group in optimizer.param_groups:
                group["lr"] = rate
        take()
        for parameter in parameters:
            parameter.grad = None

    return step


def _uncompiled_step(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    """Return what `step()` of one of torch's own does, but for importing the compiler first."""
    hooked = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    if hooked or not type(optimizer).__module__.startswith("torch.optim."):
        return optimizer.step
    plain = inspect.unwrap(type(optimizer).step)

    def step() -> None:
        with torch.set_grad_enabled(optimizer.defaults.get("differentiable", False)):
            plain(optimizer)

    return step
