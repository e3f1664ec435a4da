"""Conformance of what clients have: data sets, views, conditions, partitions, profiles."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from clients.data import Dataset, normalised, subset
from clients.data.proxy_conditions import conditioned
from clients.data.task import partly_labelled
from clients.points import Check
from clients.population.plugin_arguments import labels_of
from clients.population.profiles import draw_profiles
from clients.population.views import PHASES, require_view, seen_by
from clients.signatures import named_of
from strategies.conformance.checks import refuses, unlike
from strategies.conformance.forgetting import told_by_order
from strategies.conformance.made_up import PRIVATE

# --- views and conditions ---


def _sees(view: Any) -> str | None:
    """Gives inputs of the same shape, finite, in every phase, and keeps nothing."""
    require_view(view, PRIVATE)
    return None


def _sees_again(view: Any) -> str | None:
    """Shows a client the same again, by its generator alone."""
    for phase in PHASES:
        key = np.random.SeedSequence(3)
        one, other = (
            normalised(seen_by(view, PRIVATE, 1, phase, key), np.arange(8)) for _ in range(2)
        )
        if unlike(one, other, 0.0):
            return f"in phase {phase} it shows something else: another generator?"
    return None


def _seen_in_any_order(view: Any) -> str | None:
    """Shows clients and phases the same in any order and process."""

    def ask(view: Any, client_id: int, phase: Any) -> Sequence[Any]:
        key = np.random.SeedSequence([client_id, PHASES.index(phase)])
        return [normalised(seen_by(view, PRIVATE, client_id, phase, key), np.arange(8))]

    odd = told_by_order(view, ask, [(k, phase) for k in range(3) for phase in PHASES])
    if odd is None:
        return None
    return f"client {odd[0]} in phase {odd[1]} sees otherwise behind others: is a global kept?"


VIEW: tuple[Check, ...] = (_sees, _sees_again, _seen_in_any_order)


def _labels(condition: Any, size: int = 40, server_round: int = 1, client_id: int = 1) -> Any:
    task = partly_labelled(PRIVATE.task)
    return labels_of(condition, PRIVATE, task, np.arange(size), 7, client_id, server_round)


def _labels_are_some(condition: Any) -> str | None:
    """Gives labels [n], of which -1 says unlabelled, or soft labels [n, C], however many."""
    for size in (1, 2, 40):
        _labels(condition, size)
    return None


def _labels_again(condition: Any) -> str | None:
    """Gives the same labels again, in every round, and does not change those it is given."""
    before = PRIVATE.labels.copy()
    for server_round in (1, 2):
        one, other = (_labels(condition, server_round=server_round) for _ in range(2))
        if unlike(one, other):
            return "a second call gives others: another generator?"
    return "changes the data set" if unlike(before, PRIVATE.labels, 0.0) else None


def _labels_in_any_order(condition: Any) -> str | None:
    """Gives clients the same labels in any order of rounds, and in any process."""

    def ask(condition: Any, client_id: int, server_round: int) -> Sequence[Any]:
        return [_labels(condition, server_round=server_round, client_id=client_id)]

    odd = told_by_order(condition, ask, [(k, r) for k in range(3) for r in (1, 2, 3)])
    if odd is None:
        return None
    return f"client {odd[0]} in round {odd[1]} has others behind others: is a global kept?"


CONDITIONS: tuple[Check, ...] = (_labels_are_some, _labels_again, _labels_in_any_order)


# --- partitions ---


def _cut(partition: Any, num_clients: int = 3, size: int = 60, labels: Any = None) -> list[Any]:
    rng, ids = np.random.default_rng(0), np.arange(size)
    inputs = partial(normalised, PRIVATE, ids)
    offered: dict[str, Any] = {"ids": ids.copy, "inputs": inputs, "owners": lambda: 2 * (ids % 7)}
    labels = PRIVATE.labels[:size].copy() if labels is None else labels
    return list(partition(labels, num_clients, rng, **named_of(partition, offered)))


def _cuts(partition: Any) -> str | None:
    """Gives each client some examples, and no example to two of them."""
    return _cut_fault(_cut(partition), 3, 60)


def _cuts_for_any(partition: Any) -> str | None:
    """Does so for 2 clients and for 5, and of 53 examples, or raises a ValueError."""
    for num_clients, size in ((2, 60), (5, 60), (3, 53)):
        try:
            found = _cut(partition, num_clients, size)
        except ValueError as error:
            if not refuses(error):
                raise
            continue
        if fault := _cut_fault(found, num_clients, size):
            return f"{fault} (K={num_clients}, n={size})"
    return None


def _cut_fault(found: list[Any], num_clients: int, size: int) -> str | None:
    """Say why parts are no partition of so many examples."""
    if len(found) != num_clients:
        return f"gives {len(found)} parts to {num_clients} clients"
    if empty := [k for k, part in enumerate(found) if not len(part)]:
        return f"client {empty[0]} has no example"
    owned = np.concatenate([np.unique(part) for part in found])
    if owned.min() < 0 or owned.max() >= size:
        return f"indices lie in {owned.min()}..{owned.max()}, expected 0..{size - 1}"
    twice = len(owned) - len(np.unique(owned))
    return f"{twice} examples have two owners" if twice else None


def _cuts_again(partition: Any) -> str | None:
    """Cuts the same again with the same generator."""
    one, other = _cut(partition), _cut(partition)
    if any(not np.array_equal(mine, yours) for mine, yours in zip(one, other, strict=True)):
        return "the same seed gives other parts: another generator?"
    return None


def _leaves_labels(partition: Any) -> str | None:
    """Leaves the labels that it is given as they are."""
    labels = PRIVATE.labels.copy()
    _cut(partition, labels=labels)
    return "changes them in place" if unlike(labels, PRIVATE.labels, 0.0) else None


PARTITION: tuple[Check, ...] = (_cuts, _cuts_for_any, _cuts_again, _leaves_labels)


# --- data ---

FEW = 2000
"""Examples that are looked at."""


def _read(source: Any) -> tuple[Dataset, Dataset]:
    """Read it; or take what a YAML file has read."""
    sets = source() if callable(source) else source
    if not isinstance(sets, tuple) or not all(isinstance(each, Dataset) for each in sets):
        raise ValueError(f"gives {type(sets).__name__}, expected a train and a test Dataset")
    train, test = sets
    return train, test


def _reads(source: Any) -> str | None:
    """Gives a train and a test set of one task, stored and scaled alike."""
    train, test = _read(source)
    for name in ("name", "input_shape", "num_classes", "num_tokens", "measure"):
        one, other = (getattr(each.task, name) for each in (train, test))
        if one != other:
            return f"{name} of the task is {one} and {other}"
    for name in ("scale", "mean", "std", "label_values"):
        if getattr(train, name) != getattr(test, name):
            return f"{name} is {getattr(train, name)} and {getattr(test, name)}"
    if train.inputs.dtype != test.inputs.dtype:
        return f"inputs are of {train.inputs.dtype} and {test.inputs.dtype}"
    return None if len(train) and len(test) else "one of them has no example"


def _reads_again(source: Any) -> str | None:
    """Gives the same again."""
    for one, other in zip(_read(source), _read(source), strict=True):
        if unlike(one.inputs, other.inputs, 0.0) or unlike(one.labels, other.labels, 0.0):
            return f"{one.name}: a second time others: is its generator seeded?"
    return None


def _normalises(source: Any) -> str | None:
    """Shows networks inputs of about mean 0 and deviation 1, by mean and std after scaling."""
    train, _ = _read(source)
    if train.task.num_tokens is not None:
        return None
    seen = normalised(train, np.arange(min(FEW, len(train))))
    mean, deviation = float(seen.mean()), float(seen.std())
    if abs(mean) > 1 or not 0.1 < deviation < 10:
        return f"mean {mean:.3g}, deviation {deviation:.3g} of what networks see"
    return None


def _has_all_classes(source: Any) -> str | None:
    """Has a train example of each class that the test set has."""
    train, test = (each.task.strata(each.labels) for each in _read(source))
    missing = sorted({*map(int, test)} - {*map(int, train)})
    return f"none of {missing[:10]}" if missing else None


def _held_out(source: Any) -> str | None:
    """Tests on inputs that nobody trains on."""
    train, test = ({row.tobytes() for row in each.inputs} for each in _read(source))
    both = len(train & test)
    return f"{both} of {len(test)} test inputs are train inputs too" if both else None


DATA: tuple[Check, ...] = (_reads, _reads_again, _normalises, _has_all_classes, _held_out)


# --- conditions of the proxy set, and profiles ---


def _conditioned(condition: Any, seed: int = 0) -> Dataset:
    rng = partial(np.random.default_rng, seed)
    test = subset(PRIVATE, np.arange(40, 60))
    return conditioned(condition, subset(PRIVATE, np.arange(40)), test, rng)


def _does_to_proxy(condition: Any) -> str | None:
    """Gives a data set of the proxy set's task, with an example at least."""
    _conditioned(condition)
    return None


def _does_again(condition: Any) -> str | None:
    """Gives the same again by the same generator."""
    one, other = _conditioned(condition), _conditioned(condition)
    odd = unlike(one.inputs, other.inputs, 0.0) or unlike(one.labels, other.labels, 0.0)
    return "a second call gives others: another generator?" if odd else None


PROXY_CONDITION: tuple[Check, ...] = (_does_to_proxy, _does_again)


def _profiled(rule: Any) -> Any:
    return draw_profiles(rule, 6, np.random.default_rng(0))


def _profiles(rule: Any) -> str | None:
    """Gives Profiles: of each of K clients numbers > 0 per second, and a latency >= 0."""
    _profiled(rule)
    return None


def _profiles_again(rule: Any) -> str | None:
    """Draws the same again by the same generator."""
    one, other = vars(_profiled(rule)), vars(_profiled(rule))
    odd = [name for name in one if unlike(one[name], other[name], 0.0)]
    return f"other {odd[0]}: another generator?" if odd else None


PROFILE: tuple[Check, ...] = (_profiles, _profiles_again)
