"""Cutting data: test from train, and the clients' private set from the shared proxy set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from clients.data.dataset import Dataset, Indices, Inputs, LabelValues, channel_moments, subset
from clients.data.label_checks import Labels
from clients.data.proxy_conditions import ProxyCondition, conditioned
from clients.data.task import Task

NOBODYS: dict[str, Any] = {"owners": None, "owner_values": None}
"""As the proxy set is, whatever it is taken from."""


@dataclass(frozen=True)
class Splits:
    """The three sets of a federation; no example is in two of them.

    Attributes:
        private: what is partitioned among the clients.
        proxy: shared inputs for knowledge transfer; nobody learns from their labels, but probes may
            compare answers with them.
        test: held out, seen by no client.
        sample: examples of the test set that clients are measured on before the last round; None:
            all of it.
        rounds: the last round.
        proxy_in_test: how many proxy inputs a condition has put there that are test inputs too.
    """

    private: Dataset
    proxy: Dataset
    test: Dataset
    sample: Dataset | None = None
    rounds: int = 0
    proxy_in_test: int = 0

    def tested(self, server_round: int) -> Dataset:
        """Return what clients, and ensembles of them, are measured on in a round, 1..R."""
        last = server_round >= self.rounds
        return self.test if self.sample is None or last else self.sample


def draw_splits(
    seed: int,
    source: tuple[Dataset, Dataset],
    proxy_source: tuple[Dataset, Dataset] | None,
    test_limit: int | None,
    proxy_condition: ProxyCondition | None = None,
    **limits: Any,
) -> Splits:
    """Draw a federation's private, proxy and test set.

    Args:
        seed: the run's.
        source: train and test set.
        proxy_source: those of another data set, of which only the first is used.
        test_limit: use at most so many test examples; None: all.
        proxy_condition: what is done to the proxy set; None: nothing.
        **limits: `proxy_share`, `limit` and `proxy_limit`, as in `split`.

    Returns:
        Private, proxy and test set.
    """
    from clients.seeding import Purpose, generator  # imports torch, which data do without

    train, test = source
    if test_limit is not None:  # a stream of its own: the other sets stay as they are
        order = generator(seed, Purpose.TEST_LIMIT).permutation(len(test))
        test = subset(test, order[:test_limit])
    other, rng = proxy_source and proxy_source[0], generator(seed, Purpose.SPLIT)
    found = split(train, test, proxy_source=other, rng=rng, **limits)
    if proxy_condition is None:
        return found
    draws = partial(generator, seed, Purpose.PROXY_CONDITION)
    proxy = conditioned(proxy_condition, found.proxy, test, draws)
    step = _step(proxy, test)
    tests = {*_keys(test, step)}
    return replace(found, proxy=proxy, proxy_in_test=sum(k in tests for k in _keys(proxy, step)))


def split(
    train: Dataset,
    test: Dataset,
    *,
    proxy_share: float,
    proxy_source: Dataset | None,
    limit: int | None,
    proxy_limit: int | None,
    rng: np.random.Generator,
) -> Splits:
    """Take the proxy set out of the train set, or from another data set.

    Disjoint by construction: one permutation of the train set is cut in two, or inputs of the
    other data set that are in the train or test set are left out (CINIC-10 has CIFAR-10's, a set
    given as its own proxy has all), also where one set has bytes and the other the same images as
    floats. Shifted, cropped or otherwise changed images are not recognised. `proxy_limit` only
    shortens the proxy set; what it leaves over is not handed to the clients, so that a sweep over
    it leaves their data alone.

    Args:
        train: training examples, N of them.
        test: passed through.
        proxy_share: share of the (limited) train set that becomes the proxy set, in [0, 1); 0 for
            strategies that use none. Unused if `proxy_source` is given.
        proxy_source: another data set of the same image shape, whose labels are irrelevant; it gets
            the mean and deviation that the private set is normalised with, and keeps its scale,
            which belongs to its dtype.
        limit: use at most so many training examples in total, at least 1; None: all.
        proxy_limit: use at most so many proxy examples, at least 1; None: all.
        rng: draws the permutation.

    Returns:
        Private, proxy and test set. Private and proxy examples are in random order.

    Raises:
        ValueError: a number is out of range, the image shapes differ, or a set would be empty.
    """
    _check_split(train, proxy_share, proxy_source, limit, proxy_limit)
    order = rng.permutation(len(train))[:limit]
    if proxy_source is not None:
        chosen = _not_in(proxy_source, (train, test), rng.permutation(len(proxy_source)))
        chosen = chosen[:proxy_limit]
        # Clients answer it as their task has it; its labels are of whatever it was made for.
        task = replace(train.task, label_fault=proxy_source.task.label_fault)
        proxy = subset(proxy_source, chosen)
        proxy = replace(proxy, task=task, mean=train.mean, std=train.std, **NOBODYS)
        return Splits(subset(train, order), proxy, test)
    num_proxy = round(proxy_share * len(order))
    if num_proxy == len(order) or (num_proxy == 0 and proxy_share > 0):
        raise ValueError(
            f"proxy_share={proxy_share} of {len(order)} examples leaves {num_proxy} for the proxy "
            f"set and {len(order) - num_proxy} for the private set, expected at least 1 each"
        )
    proxy = replace(subset(train, order[:num_proxy][:proxy_limit]), **NOBODYS)
    return Splits(subset(train, order[num_proxy:]), proxy, test)


def _not_in(source: Dataset, others: tuple[Dataset, ...], order: Indices) -> Indices:
    """Keep the positions of `order` whose image is in none of the others, however it is stored."""
    step = _step(source, *others)
    known = {key for other in others for key in _keys(other, step)}
    fresh = np.array([key not in known for key in _keys(source, step)], dtype=np.bool_)
    kept = order[fresh[order]]
    if not len(kept):
        names = " or ".join(dict.fromkeys(other.name for other in others))
        raise ValueError(
            f"proxy_source={source.name}: every image of it is in {names} too, expected another "
            "data set"
        )
    return np.asarray(kept, dtype=np.int64)


def _step(*datasets: Dataset) -> float | None:
    """How far apart two pixels are that differ, after scaling; None = bytes say it.

    Floats that were bytes once are off by rounding: they are compared in the bytes' steps, and
    floats with floats in steps of 1/255, or of a sixteenth of their deviation if that is finer.
    """
    forms = {(each.inputs.dtype, each.scale) for each in datasets}
    if len(forms) == 1 and datasets[0].inputs.dtype.kind in "iu":
        return None
    if all(each.inputs.dtype.kind in "iu" for each in datasets):  # tokens in unlike dtypes
        return 1.0
    whole = [each.scale for each in datasets if each.inputs.dtype == np.uint8]
    return min(whole) if whole else min(1 / 255, *(min(each.std) / 16 for each in datasets))


def _keys(dataset: Dataset, step: float | None) -> Iterator[bytes]:
    for each in dataset.inputs:
        if step is None:
            yield each.tobytes()
        else:  # a zero may have come out negative
            yield (np.rint(each * np.float64(dataset.scale / step)) + 0.0).tobytes()


def _check_split(
    train: Dataset,
    proxy_share: float,
    proxy_source: Dataset | None,
    limit: int | None,
    proxy_limit: int | None,
) -> None:
    if not 0 <= proxy_share < 1:
        raise ValueError(f"proxy_share={proxy_share}, expected a number in [0, 1)")
    if not len(train):
        raise ValueError(f"{train.name}: no training examples, expected at least 1")
    if train.task.soft and train.task.num_classes < 2:
        raise ValueError(f"{train.name}: all labels are alike, expected at least 2 classes")
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}, expected at least 1")
    if proxy_limit is not None and proxy_limit < 1:
        raise ValueError(f"proxy_limit={proxy_limit}, expected at least 1")
    if proxy_source is None:
        return
    theirs, ours = proxy_source.task, train.task
    if theirs.input_shape != ours.input_shape:
        raise ValueError(
            f"proxy_source={proxy_source.name} has inputs of shape {theirs.input_shape}, "
            f"expected {ours.input_shape}, the shape of {train.name}"
        )
    if theirs.num_tokens != ours.num_tokens:
        raise ValueError(
            f"proxy_source={proxy_source.name} has num_tokens={theirs.num_tokens}, expected "
            f"{ours.num_tokens}, that of {train.name}"
        )
    if not len(proxy_source):
        raise ValueError(f"proxy_source={proxy_source.name} is empty, expected at least 1 example")


def hold_out(
    name: str,
    inputs: Inputs,
    labels: Labels,
    task: Task,
    scale: float,
    test_share: float,
    rng: np.random.Generator,
    label_values: LabelValues | None = None,
    columns: Sequence[str] | None = None,
    owners: Indices | None = None,
    owner_values: LabelValues | None = None,
) -> tuple[Dataset, Dataset]:
    """Cut a data set that comes in one piece into train and test, at random.

    Where each example is somebody's, so is the share of each owner, and one example at least is
    left, but where others do not suffice.

    Args:
        name: of both sets.
        inputs: [N, ...], N at least 2.
        labels: [N, ...], as the task has them.
        task: what is to be predicted.
        scale: inputs are multiplied by it first; unused where the task has tokens.
        test_share: share of the examples held out, in (0, 1).
        rng: draws the permutation that is cut.
        label_values: [C], what its file calls the classes; None: 0..C - 1.
        columns: what messages call the channels; None: by their number.
        owners: whose each example is [N], int64; None: nobody says.
        owner_values: [W], what its file calls them; None: 0..W - 1.

    Returns:
        Train and test set, both normalised by the mean and deviation of the train set.

    Raises:
        ValueError: `test_share` is out of range, a set would be empty, or lengths differ.
    """
    if len(inputs) != len(labels):
        raise ValueError(
            f"{name}: expected one label for each input, found {len(labels)} labels for "
            f"{len(inputs)} inputs"
        )
    num_test = round(test_share * len(labels)) if 0 < test_share < 1 else 0
    if not 1 <= num_test < len(labels):
        raise ValueError(
            f"{name}: test_share={test_share}, expected a number in (0, 1) that leaves at least 1 "
            f"of the {len(labels)} examples for each set"
        )
    order = rng.permutation(len(labels))
    if owners is not None:
        order = _shared_by(owners, order, rng)
    test_ids, train_ids = order[:num_test], order[num_test:]
    tokens = task.num_tokens is not None
    moments = ((), ()) if tokens else channel_moments(name, inputs[train_ids], scale, columns)
    about = task, scale, *moments, label_values
    sets = [Dataset(name, inputs[ids], labels[ids], *about) for ids in (train_ids, test_ids)]
    if owners is not None:
        sets = [
            replace(each, owners=owners[ids], owner_values=owner_values)
            for each, ids in zip(sets, (train_ids, test_ids), strict=True)
        ]
    return sets[0], sets[1]


def _shared_by(owners: Indices, order: Indices, rng: np.random.Generator) -> Indices:
    """Reorder so that the first have the same share of each owner; the last of each comes last.

    Systematic sampling: an owner's examples lie evenly from 0 to 1, from a start that is drawn, or
    of two examples none would ever be among the first fifth.
    """
    by_owner = order[np.argsort(owners[order], kind="stable")]
    whose = owners[by_owner]
    begins = np.searchsorted(whose, whose)
    sizes = np.searchsorted(whose, whose, "right") - begins
    rank = np.arange(len(order)) - begins
    place = (rank + rng.random(len(order))[begins]) / sizes
    return by_owner[np.lexsort((place, rank == sizes - 1))]
