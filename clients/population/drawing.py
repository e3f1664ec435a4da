"""Drawing who takes part: a federation's clients, and its student as it is before round 1."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from clients.data import Splits
from clients.models.factory import build
from clients.partition import Partition
from clients.population.architectures import assign_architectures
from clients.population.clients import SimulatedClients
from clients.population.conditions import Corruption
from clients.seeding import Purpose, generator
from clients.training.loop import Trainer


def draw_clients(
    splits: Splits,
    seed: int,
    partition: Callable[..., Partition],
    *,
    num_clients: int,
    architectures: Mapping[str, Mapping[str, Any]],
    training: Trainer,
    corruption: Corruption | None,
    **about: Any,
) -> SimulatedClients:
    """Cut the private set among the clients and give each its architecture.

    Args:
        splits: Private, proxy and test sets.
        seed: The run's seed.
        partition: (labels [n], K, rng) -> indices of each client.
        num_clients: K >= 1.
        architectures: By name `share`, relative and > 0, and `model`, a model function.
        training: `train` of `SimulatedClients`.
        corruption: Its `corrupt`.
        **about: Its `student`, `together`, `messenger`, `objective` and `profile`.

    Returns:
        The clients.
    """
    private, shares = splits.private, {n: kind["share"] for n, kind in architectures.items()}
    kinds = private.task.strata(private.labels)
    return SimulatedClients(
        splits=splits,
        partitions=partition(kinds, num_clients, generator(seed, Purpose.PARTITION)),
        architectures=assign_architectures(
            shares, num_clients, generator(seed, Purpose.POPULATION)
        ),
        models={name: kind["model"] for name, kind in architectures.items()},
        train=training,
        seed=seed,
        corrupt=corruption,
        **about,
    )


def draw_student(clients: SimulatedClients, device: str) -> nn.Module:
    """Build the global student as it is before the first round.

    Args:
        clients: Of the federation; they know its model function and the seed.
        device: Where it learns, "cpu" or one that torch knows.

    Returns:
        The student, there.
    """
    private, rng = clients.splits.private, generator(clients.seed, Purpose.STUDENT)
    return build(clients.student, private.task, rng).to(device)
