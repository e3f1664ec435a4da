"""Drawing who takes part: a federation's clients, and its student as it is before round 1."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from clients.data import Splits, subset
from clients.models.factory import build
from clients.population.architectures import assign_architectures
from clients.population.builders import builder_of, one_per_profile
from clients.population.clients import SimulatedClients
from clients.population.plugin_arguments import Cut, cut
from clients.population.profiles import draw_profiles
from clients.seeding import Purpose, generator
from clients.training.batches import examples_learned
from clients.training.loop import PASSES, Trainer

MEASURING, LEAST_SAMPLE = 0.1, 500
"""How much of what a client computes in a round it is measured for, and on how few examples."""


def draw_clients(
    splits: Splits,
    seed: int,
    partition: Cut,
    *,
    num_clients: int,
    architectures: Mapping[str, Mapping[str, Any]],
    training: Trainer,
    test_examples: int | None = None,
    rounds: int = 1,
    **about: Any,
) -> SimulatedClients:
    """Cut the private set among the clients and give each its architecture.

    Args:
        splits: Private, proxy and test sets.
        seed: The run's seed.
        partition: (labels [n], K, rng, ...) -> indices of each client.
        num_clients: K >= 1.
        architectures: By name `share`, relative and > 0, `model`, a model function, and, if it has
            one, the `tier` that this is told.
        training: `train` of `SimulatedClients`.
        test_examples: As in `with_sample`.
        rounds: R, the last round.
        **about: Its `student`, `together`, `messenger`, `condition`, `objective` and `profile`.

    Returns:
        The clients.
    """
    private, shares = splits.private, {n: kind["share"] for n, kind in architectures.items()}
    kinds = private.task.strata(private.labels)
    partitions = cut(partition, kinds, num_clients, generator(seed, Purpose.PARTITION), private)
    learned = sum(examples_learned(training, len(own)) or len(own) for own in partitions)
    passes = PASSES * learned / num_clients + len(splits.proxy)
    models, kinds_of = one_per_profile(
        {name: builder_of(kind) for name, kind in architectures.items()},
        assign_architectures(shares, num_clients, generator(seed, Purpose.POPULATION)),
        lambda: draw_profiles(about.get("profile"), num_clients, generator(seed, Purpose.PROFILES)),
    )
    return SimulatedClients(
        splits=with_sample(splits, seed, test_examples, round(MEASURING * passes), rounds),
        partitions=partitions,
        architectures=kinds_of,
        models=models,
        train=training,
        seed=seed,
        **about,
    )


def with_sample(splits: Splits, seed: int, examples: int | None, usual: int, rounds: int) -> Splits:
    """Draw the test examples that clients are measured on before the last round.

    Args:
        splits: Private, proxy and test set.
        seed: The run's seed.
        examples: How many, of which 0 is the whole set; None = `usual`, and LEAST_SAMPLE or more.
        usual: How many cost MEASURING of the round that they measure.
        rounds: R, the last round, which is measured on the whole set.

    Returns:
        The three sets, with the sample where it is smaller than the test set.

    Raises:
        ValueError: The number is out of range.
    """
    number = max(usual, LEAST_SAMPLE) if examples is None else examples
    if number < 0:
        raise ValueError(f"evaluation.examples={examples}: expected >= 0, 0 for the whole test set")
    if rounds == 1 or not 0 < number < len(splits.test):
        return splits
    order = generator(seed, Purpose.TEST_SAMPLE).permutation(len(splits.test))
    return replace(splits, sample=subset(splits.test, order[:number]), rounds=rounds)


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
