"""Learning-rate schedules: any of torch's, by step or epoch of a training or by round of a run."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, Literal, get_args

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from clients.training.optimizer_steps import Optimizer

Scheduler = Callable[[torch.optim.Optimizer], LRScheduler]
"""Makes a torch scheduler of an optimiser, e.g. a partial of `lr_scheduler.CosineAnnealingLR`."""

By = Literal["round", "epoch", "step"]
"""What turns a schedule: each round of the run, or each epoch or step of one training."""

Rate = Callable[[int, int], float | None]
"""(epoch, step of the training), both from 0 -> learning rate; None = the optimiser's own."""


def learning_rates(scheduler: Scheduler, optimizer: Optimizer) -> Iterator[float]:
    """Yield the learning rate of each turn of a schedule, without end.

    Args:
        scheduler: Any of torch's that goes by turns alone.
        optimizer: Whose learning rate it changes; a fresh one is made.

    Yields:
        That of the first turn, as the schedule has it, and so on.

    Raises:
        ValueError: It wants to be told a loss, changes something else too, or a number of it is out
            of range.
    """
    made = optimizer([torch.nn.Parameter(torch.zeros(1))])
    begun = _beside_rate(made)
    try:
        schedule: Any = scheduler(made)
        if not isinstance(schedule, LRScheduler) or isinstance(schedule, ReduceLROnPlateau):
            raise ValueError("expected one of torch's that goes by turns, not by a loss")
        while True:
            if _beside_rate(made) != begun:
                raise ValueError("it changes more than lr: expected cycle_momentum=false")
            yield float(made.param_groups[0]["lr"])
            with warnings.catch_warnings():  # of a step of the optimiser, which is elsewhere
                warnings.simplefilter("ignore", UserWarning)
                schedule.step()
    except Exception as error:  # any of torch's, or anyone's
        raise ValueError(f"scheduler: {error}") from error


def _beside_rate(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return what an optimiser is set to beside learning rates."""
    group = optimizer.param_groups[0]
    return {n: v for n, v in group.items() if n != "params" and not n.endswith("lr")}


def rate_of(scheduler: Scheduler | None, by: By, optimizer: Optimizer) -> Rate:
    """Return the learning rate over one training, which a schedule by round does not change.

    Args:
        scheduler: Any that `learning_rates` takes; None = there is none.
        by: What turns it.
        optimizer: Whose learning rate it changes.

    Returns:
        Epoch and step to the learning rate.

    Raises:
        ValueError: `by` is something else.
    """
    if by not in get_args(By):
        raise ValueError(f"scheduler_by={by}: expected one of {', '.join(get_args(By))}")
    if scheduler is None or by == "round":
        return lambda epoch, step: None
    rates, found = learning_rates(scheduler, optimizer), list[float]()

    def rate(epoch: int, step: int) -> float:
        turn = step if by == "step" else epoch
        while len(found) <= turn:
            found.append(next(rates))
        return found[turn]

    return rate


def rate_at(scheduler: Scheduler, optimizer: Optimizer, number: int) -> float:
    """Return the learning rate of one turn of a schedule, from 0; errors as `learning_rates`."""
    return next(islice(learning_rates(scheduler, optimizer), number, None))


def turn(
    scheduler: Scheduler | None, optimizer: Optimizer, made: torch.optim.Optimizer, number: int
) -> None:
    """Set a torch optimiser to the learning rate of one turn of a schedule, in place.

    Args:
        scheduler: As in `rate_of`.
        optimizer: What made it, from which the schedule goes out.
        made: That optimiser; changed.
        number: Of the turn, from 0.
    """
    if scheduler is not None:
        rate = rate_at(scheduler, optimizer, number)
        for group in made.param_groups:
            group["lr"] = rate


def of_round(train: Callable[..., Any], server_round: int) -> dict[str, Any]:
    """Return the optimiser of a round, where a trainer's schedule goes by rounds.

    Args:
        train: `clients.training.loop.train` with its numbers bound, or another's with these bound.
        server_round: 1..R; 0 = it is not known.

    Returns:
        `optimizer`, to be bound in the place of what is; nothing where no such schedule is bound.
    """
    bound = getattr(train, "keywords", {})
    by_round = bound.get("scheduler_by", "round") == "round"
    if bound.get("scheduler") is None or not by_round or not server_round:
        return {}
    if bound.get("optimizer") is None:
        raise ValueError("scheduler: expected an optimizer beside it, whose lr it changes")
    rate = rate_at(bound["scheduler"], bound["optimizer"], server_round - 1)
    return {"optimizer": partial(bound["optimizer"], lr=rate)}
