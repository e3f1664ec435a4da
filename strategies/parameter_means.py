"""Parameters of clients of several architectures, averaged each with its like.

They come beside the answers to proxy examples, and are averaged where those are folded.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from clients.architectures import ModelFunction, Parameters, build, parameters_of
from clients.arrays import read_arrays, write_arrays
from clients.data import Dataset
from clients.messages import ARRAYS, METRICS, Reducer, read_sender

MEAN, WEIGHTS = "mean/", "mean-weights"

Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]
"""Shape of each parameter and buffer, by name, by architecture."""


@dataclass
class _Sum:
    """Weighted parameters of clients of one key, so far."""

    weight: float = 0.0
    dtypes: dict[str, np.dtype[np.generic]] = field(default_factory=dict)
    arrays: dict[str, npt.NDArray[np.floating]] = field(default_factory=dict)

    def add(self, parameters: Parameters, weight: float) -> None:
        self.weight += weight
        for name, array in parameters.items():
            if name in self.arrays:
                self.arrays[name] += weight * array
            else:
                self.dtypes[name] = array.dtype
                self.arrays[name] = np.asarray(weight * array)

    def mean(self) -> Parameters:
        means = {}
        for name, array in self.arrays.items():
            value, dtype = array / self.weight, self.dtypes[name]
            whole = np.issubdtype(dtype, np.integer)  # batch norms count their batches
            means[name] = (np.round(value) if whole else value).astype(dtype)
        return means


Sums = dict[str, _Sum]


def means_of(replies: Iterable[Message], by_client: bool, shapes: Shapes) -> dict[str, Parameters]:
    """Average the parameters that usable replies carry, weighed by number of examples.

    Args:
        replies: The clients' own, or one that they were folded into.
        by_client: Whether each client stands for itself.
        shapes: What parameters of each architecture look like; others are left out, where that was
            not seen to as replies were folded.

    Returns:
        Mean parameters by key: architecture, or architecture and client.
    """
    sums: Sums = {}
    for reply in replies:
        if not reply.has_content():
            continue
        if WEIGHTS in reply.content:
            _add_part(sums, reply.content)
        elif fault_in_parameters(reply, reply, shapes) is None:
            _add(sums, reply.content, by_client)
    return {key: sums[key].mean() for key in sorted(sums)}


def averaging_too(inner: Reducer, shapes: Shapes, by_client: bool) -> Reducer:
    """Extend a reducer of answers by means of the parameters beside them.

    Args:
        inner: Reducer of the answers.
        shapes: What parameters of each architecture look like.
        by_client: As in `means_of`.

    Returns:
        The reducer; what it gives has the inner one's records and more.
    """
    return Reducer(
        fold=partial(_fold, inner=inner, by_client=by_client),
        merge=partial(_merge, inner=inner),
        fault=partial(fault_in_parameters, shapes=shapes),
    )


def shapes_of(models: Mapping[str, ModelFunction], dataset: Dataset) -> Shapes:
    """Look up what parameters of each architecture look like.

    Args:
        models: Model functions by name.
        dataset: Gives image shape and classes.

    Returns:
        The shapes.
    """
    rng, task = np.random.default_rng(0), (dataset.image_shape, dataset.num_classes)
    built = {name: parameters_of(build(model, *task, rng)) for name, model in models.items()}
    return {
        name: {key: array.shape for key, array in parameters.items()}
        for name, parameters in built.items()
    }


def fault_in_parameters(request: Message, reply: Message, shapes: Shapes) -> str | None:
    """Say why the parameters of a reply fit no architecture that there is; None if they do."""
    record = reply.content.get(ARRAYS)
    if record is None:
        return None
    _, architecture = read_sender(reply.content)
    wanted = shapes.get(architecture)
    if wanted is None:
        return f"parameters of architecture '{architecture}', expected of {sorted(shapes)}"
    found = {name: tuple(array.shape) for name, array in cast(ArrayRecord, record).items()}
    odd = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    if odd:
        return f"'{odd[0]}' has shape {found.get(odd[0])}, expected {wanted.get(odd[0])}"
    return None


def _fold(contents: Iterable[RecordDict], inner: Reducer, by_client: bool) -> RecordDict:
    sums: Sums = {}

    def noted() -> Iterator[RecordDict]:
        for content in contents:
            _add(sums, content, by_client)
            yield content

    return _with_means(_exhausted(inner.fold, noted()), sums)


def _merge(parts: Iterable[RecordDict], inner: Reducer) -> RecordDict:
    sums: Sums = {}

    def noted() -> Iterator[RecordDict]:
        for part in parts:
            _add_part(sums, part)
            yield part

    return _with_means(_exhausted(inner.merge, noted()), sums)


def _exhausted(
    reduce: Callable[[Iterable[RecordDict]], RecordDict], contents: Iterator[RecordDict]
) -> RecordDict:
    """Reduce, and look at what the reducer did not, too."""
    part = reduce(contents)
    for _ in contents:
        pass
    return part


def _with_means(part: RecordDict, sums: Sums) -> RecordDict:
    part[WEIGHTS] = MetricRecord({key: sums[key].weight for key in sums})
    for key in sums:
        part[MEAN + key] = write_arrays(sums[key].mean())
    return part


def _add(sums: Sums, content: RecordDict, by_client: bool) -> None:
    if ARRAYS not in content:
        return
    client_id, architecture = read_sender(content)
    key = f"{architecture}-{client_id}" if by_client else architecture
    weight = float(cast(float, cast(MetricRecord, content[METRICS])["num-examples"]))
    sums.setdefault(key, _Sum()).add(read_arrays(cast(ArrayRecord, content[ARRAYS])), weight)


def _add_part(sums: Sums, part: RecordDict) -> None:
    for key, weight in cast(MetricRecord, part[WEIGHTS]).items():
        arrays = read_arrays(cast(ArrayRecord, part[MEAN + key]))
        sums.setdefault(key, _Sum()).add(arrays, float(cast(float, weight)))
