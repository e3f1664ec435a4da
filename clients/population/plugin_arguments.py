"""Plug-ins of a population, and what each gets by name: partition, condition, builder of a network.

What one names beyond this is refused before anything is loaded.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from clients.data import Dataset, Task, normalised
from clients.data.label_checks import Labels
from clients.execution.isolation import keeps_nothing
from clients.models.factory import OFFERED, ModelFunction
from clients.partition import Partition
from clients.population.builders import tier_of
from clients.population.label_conditions import Condition
from clients.population.profiles import ProfileRule
from clients.seeding import Purpose, stream
from clients.signatures import named_of, needs, unoffered

PARTITION = ("ids", "inputs", "owners")
"""Of the private set: positions [n], inputs as networks see them [n, ...], whose each is [n]."""

CONDITION = ("ids", "inputs", "rng", "round_rng")
"""Of a client's examples: positions in the private set [n], inputs [n, ...]; a generator that is
the same in each round, and one of the round."""

Cut = Callable[..., Partition]
"""(labels [n], K, rng, ...) -> indices of each client, with what it names of `PARTITION`."""


def require_offered(
    partition: Cut,
    student: ModelFunction,
    *,
    architectures: Mapping[str, Mapping[str, Any]],
    condition: Condition | None,
    profile: ProfileRule | None,
    **others: Any,
) -> None:
    """Refuse a plug-in that names what nobody gives it.

    Args:
        partition: As in `draw_clients`, like all that follows.
        student: The student's model function.
        architectures: By name, `share`, `model` and, if it has one, `tier`.
        condition: What is done to labels.
        profile: Draws how fast clients are.
        **others: What else is said of clients.

    Raises:
        ValueError: Names the key, the function, the argument, and what there is.
    """
    for key, cut in _layers("partition", partition):
        _require(key, cut, 3, PARTITION)
    for key, inner in [] if condition is None else _layers("clients.condition", condition):
        _require(key, inner, 4, CONDITION)
    _require("student", student, 0, OFFERED)
    there = () if profile is None else ("profile",)
    for name, kind in architectures.items():
        key = f"clients.architectures.{name}"
        if "tier" in kind and not tier_of(kind):
            raise ValueError(
                f"{key}.tier={kind['tier']}: {_called(kind['model'])} has no argument 'tier' to be "
                "given"
            )
        _require(f"{key}.model", kind["model"], 0, (*OFFERED, *tier_of(kind), *there))


def cut(
    partition: Cut, labels: Labels, num_clients: int, rng: np.random.Generator, private: Dataset
) -> Partition:
    """Cut the private set among clients.

    Args:
        partition: How; also one that is made `of` another.
        labels: Kind of each example [n].
        num_clients: K.
        rng: Source of randomness.
        private: The examples.

    Returns:
        Indices of each client's.

    Raises:
        ValueError: The partition gave something else, or nobody says whose examples are.
    """
    everything = np.arange(len(private))
    offered: dict[str, Callable[[], Any]] = {
        "ids": everything.copy,
        "inputs": partial(normalised, private, everything),
    }
    if private.owners is not None:
        offered["owners"] = private.owners.copy
    elif any(needs(layer, "owners") for _, layer in _layers("partition", partition)):
        raise ValueError(
            f"partition: {private.name} does not say whose its examples are: expected data that do,"
            " such as data=table with data.source.owner=, the name of a column, or an .npz with an "
            "array owners"
        )
    found: Partition = _told(partition, lambda depth: offered)(labels, num_clients, rng)
    if reason := _misfit(found, num_clients, len(private)):
        raise ValueError(f"partition: the function returned {reason}")
    return found


def _misfit(found: Any, num_clients: int, num_examples: int) -> str | None:
    """Say why this is no partition: K arrays of indices, or ours, which checks itself."""
    if not isinstance(found, Sequence):
        return f"{type(found).__name__}, expected {num_clients} arrays of indices"
    if len(found) != num_clients:
        return f"examples of {len(found)} clients, expected {num_clients}"
    for client_id, own in enumerate(found) if not isinstance(found, Partition) else ():
        indices = np.asarray(own)
        if indices.ndim != 1 or not (indices.dtype.kind in "iu" or not len(indices)):
            return f"{indices.dtype} {indices.shape} for client {client_id}, expected integers [n]"
    flat = found.indices if isinstance(found, Partition) else np.concatenate(found)
    if len(flat) and not 0 <= flat.min() <= flat.max() < num_examples:
        return f"indices {flat.min()} to {flat.max()}, expected 0 to {num_examples - 1}"
    return None


def labels_of(
    condition: Condition,
    private: Dataset,
    task: Task,
    indices: npt.NDArray[np.int64],
    seed: int,
    client_id: int,
    server_round: int,
) -> Labels:
    """Return the labels that a client learns under a condition.

    Args:
        condition: What is done to its own; also one that is made `of` another.
        private: Where its examples are.
        task: What labels may be.
        indices: Which are its own [n].
        seed: The run's.
        client_id: Whose.
        server_round: 1..R.

    Returns:
        Labels as the task has them [n, ...]; or soft labels [n, C], float32, where there is one
        class of each input.

    Raises:
        ValueError: They are none, or the condition keeps something.
    """

    def offered(depth: int) -> dict[str, Callable[[], Any]]:
        """Give each of those within each other a stream of its own: none moves another's draws."""

        def rng(server_round: int = 0) -> np.random.Generator:
            key = stream(seed, Purpose.CONDITION, server_round, client_id, turn=depth)
            return np.random.default_rng(key)

        return {
            "ids": indices.copy,
            "inputs": partial(normalised, private, indices),
            "rng": rng,
            "round_rng": partial(rng, server_round),
        }

    about = private.labels[indices], task.num_classes, client_id, server_round
    with keeps_nothing(**{"clients.condition": condition}):
        try:
            found = _told(condition, offered)(*about)
            return _checked(np.asarray(found), task, len(indices))
        except ValueError as error:
            raise ValueError(f"clients.condition: {error}") from error


# --- steps ---


def _told(
    function: Callable[..., Any],
    offered: Callable[[int], Mapping[str, Callable[[], Any]]],
    depth: int = 0,
) -> Callable[..., Any]:
    """Bind what a partition or condition, and the one that it is made of, name."""
    found = named_of(function, offered(depth))
    if (inner := _inner(function)) is not None:
        found["of"] = _told(inner, offered, depth + 1)
    return partial(function, **found)


def _layers(key: str, function: Callable[..., Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield a partition or condition, and what it is made of, with their keys."""
    yield key, function
    if (inner := _inner(function)) is not None:
        yield from _layers(f"{key}.of", inner)


def _inner(function: Callable[..., Any]) -> Callable[..., Any] | None:
    inner = function.keywords.get("of") if isinstance(function, partial) else None
    return inner if callable(inner) else None


def _checked(labels: Labels, task: Task, num_examples: int) -> Labels:
    """Return labels that are the task's, or soft labels as float32; ValueError says what is odd."""
    if labels.shape[:1] != (num_examples,):
        raise ValueError(f"labels has shape {labels.shape}, expected {num_examples} examples")
    if not (task.one_class_each and labels.dtype.kind == "f"):
        if reason := task.label_fault(labels):
            raise ValueError(reason)
        return np.array(labels)
    if labels.shape[1:] != (task.num_classes,):
        raise ValueError(
            f"soft labels has shape {labels.shape}, expected {(num_examples, task.num_classes)}"
        )
    least, sums = labels.min(1), labels.sum(1)
    if len(odd := np.flatnonzero(~((least >= 0) & (np.abs(sums - 1) <= 1e-4)))):  # a NaN too
        raise ValueError(
            f"row {odd[0]} of soft labels has a least number {least[odd[0]]:g} and sums to "
            f"{sums[odd[0]]:g}, expected numbers >= 0 that sum to 1"
        )
    return labels.astype(np.float32)


def _require(key: str, function: Callable[..., Any], places: int, offered: Collection[str]) -> None:
    if (odd := unoffered(function, places, offered)) is not None:
        raise ValueError(
            f"{key}: {_called(function)} takes '{odd}', which nobody offers: there are "
            f"{', '.join(offered)}; what else it takes stands beside its _target_"
        )


def _called(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))
