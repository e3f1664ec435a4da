"""Weighted sums and means of parameters; those of several architectures, each with its like.

The latter come beside the answers to proxy examples, and are averaged where those are folded.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from clients.data import Dataset
from clients.messages.accumulator import Accumulator, Fault, Reducer, Sieve, is_part
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.replies import read_sender
from clients.messages.requests import ARRAYS, METRICS
from clients.messages.sizes import examples_in
from clients.models.factory import ModelFunction, Parameters, build, parameters_of
from clients.seeding import Purpose, named_generator

MEAN, WEIGHTS = "mean/", "mean-weights"

Forms = Mapping[str, Mapping[str, str]]
"""Shape and dtype of each parameter and buffer, by name, by architecture: "float32[10, 64]"."""


Array = npt.NDArray[Any]


def wide(array: Array) -> Array:
    """Return an array [...] in float64: in float32 a mean of equal ones is not what they are."""
    return array.astype(np.float64)


class WeightedSum:
    """A running weighted sum of parameters, in the order in which they come.

    Attributes:
        weight: Of all so far.
        arrays: Their sums, by name, as wide as they are summed.
    """

    def __init__(self, widen: Callable[[Array], Array] = wide) -> None:
        """Begin with none.

        Args:
            widen: What is done to each array before it is multiplied and added.
        """
        self.weight = 0.0
        self.arrays: dict[str, Array] = {}
        self._widen = widen
        self._dtypes: dict[str, np.dtype[Any]] = {}

    def add(self, parameters: Parameters, weight: float) -> None:
        """Add parameters times their weight."""
        self.weight += weight
        for name, array in parameters.items():
            own = weight * self._widen(array)
            if name in self.arrays:
                self.arrays[name] += own
            else:
                self._dtypes[name], self.arrays[name] = array.dtype, np.asarray(own)

    def sum(self) -> Parameters:
        """Return the sum, in the dtypes of what was added."""
        return cast_to(self._dtypes, self.arrays)

    def mean(self) -> Parameters:
        """Return the weighted mean, in the dtypes of what was added."""
        return cast_to(self._dtypes, {n: sums / self.weight for n, sums in self.arrays.items()})


def cast_to(dtypes: Mapping[str, np.dtype[Any]], arrays: Mapping[str, Array]) -> Parameters:
    """Cast sums or means [...]; round where integers are wanted: batch norms count batches."""
    whole = {name for name, dtype in dtypes.items() if np.issubdtype(dtype, np.integer)}
    return {
        name: (np.round(value) if name in whole else value).astype(dtypes[name])
        for name, value in arrays.items()
    }


Sums = dict[str, WeightedSum]


def means_of(replies: Iterable[Message], by_client: bool, fault: Fault) -> dict[str, Parameters]:
    """Average the parameters that usable replies carry, weighed by number of examples.

    Args:
        replies: The clients' own, or one that they were folded into.
        by_client: Whether each client stands for itself.
        fault: Tells parameters to leave out; our engine has refused such replies before.

    Returns:
        Mean parameters by key: architecture, or architecture and client.
    """
    sums: Sums = {}
    for reply in replies:
        if not reply.has_content():
            continue
        if is_part(reply):
            _add_part(sums, reply.content)
        elif fault(reply, reply) is None:
            _add(sums, reply.content, by_client)
    return {key: sums[key].mean() for key in sorted(sums)}


def averaging_too(inner: Reducer | None, by_client: bool, fault: Fault) -> Reducer | Sieve:
    """Extend a reducer of answers by means of the parameters beside them.

    Args:
        inner: Reducer of the answers; None = they are all wanted, and so are the parameters.
        by_client: As in `means_of`.
        fault: As there; who sends such parameters is counted as failed.

    Returns:
        The reducer; what it gives has the inner one's records and more.
    """
    if inner is None:
        return Sieve(fault)
    return Reducer(partial(_WithMeans, inner.accumulator, by_client), fault)


def starts_of(
    models: Mapping[str, ModelFunction], dataset: Dataset, seed: int
) -> dict[str, Parameters]:
    """Draw the network that all clients of an architecture begin with, for each architecture.

    The mean of networks that began apart is no network: permuted neurons do not add up.

    Args:
        models: Model functions by name.
        dataset: Gives the task.
        seed: The run's.

    Returns:
        Parameters by name; each depends on seed and name alone.
    """
    task = dataset.task
    draws = {name: named_generator(seed, Purpose.ARCHITECTURE, name) for name in models}
    return {name: parameters_of(build(model, task, draws[name])) for name, model in models.items()}


def forms_of(models: Mapping[str, ModelFunction], dataset: Dataset) -> Forms:
    """Look up what parameters of each architecture look like.

    Args:
        models: Model functions by name.
        dataset: Gives the task.

    Returns:
        The forms.
    """
    rng, task = np.random.default_rng(0), dataset.task
    built = {name: parameters_of(build(model, task, rng)) for name, model in models.items()}
    return {
        name: {key: _form(array.dtype, array.shape) for key, array in parameters.items()}
        for name, parameters in built.items()
    }


def fault_in_parameters(
    request: Message, reply: Message, *, architectures: Sequence[str], forms: Forms
) -> str | None:
    """Say why parameters in a reply are not those of its client's architecture.

    Args:
        request: Not looked at.
        reply: A predictions reply.
        architectures: Name of each client's architecture.
        forms: What parameters of each look like.

    Returns:
        Which name or array is odd; None if there are no parameters, or they fit.
    """
    record = reply.content.get(ARRAYS)
    if record is None:
        return None
    client_id, architecture = read_sender(reply.content)
    expected = architectures[client_id] if 0 <= client_id < len(architectures) else "nobody"
    if architecture != expected:
        return f"parameters of architecture '{architecture}', expected of '{expected}'"
    return odd_form(cast(ArrayRecord, record), forms[architecture])


def odd_form(arrays: ArrayRecord, wanted: Mapping[str, str]) -> str | None:
    """Say which array has not the form that is wanted, or is missing; None if all have."""
    found = {name: _form(array.dtype, array.shape) for name, array in arrays.items()}
    odd = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    if odd:
        return f"'{odd[0]}' is {found.get(odd[0])}, expected {wanted.get(odd[0])}"
    return None


def _form(dtype: object, shape: Iterable[int]) -> str:
    return f"{dtype}{[*shape]}"


class _WithMeans:
    """An accumulator of answers, and of the parameters beside them."""

    def __init__(self, inner: Callable[[], Accumulator], by_client: bool) -> None:
        self._inner, self._by_client = inner(), by_client
        self._sums: Sums = {}

    def add(self, content: RecordDict) -> None:
        _add(self._sums, content, self._by_client)
        self._inner.add(content)

    def merge(self, part: RecordDict) -> None:
        _add_part(self._sums, part)
        self._inner.merge(part)

    def part(self) -> RecordDict:
        part = self._inner.part()
        part[WEIGHTS] = MetricRecord({key: own.weight for key, own in self._sums.items()})
        for key, own in self._sums.items():
            part[MEAN + key] = write_arrays(own.mean())
        return part


def _add(sums: Sums, content: RecordDict, by_client: bool) -> None:
    if ARRAYS not in content:
        return
    client_id, architecture = read_sender(content)
    key = f"{architecture}-{client_id}" if by_client else architecture
    weight = examples_in(cast(MetricRecord, content[METRICS]))
    sums.setdefault(key, WeightedSum()).add(read_arrays(cast(ArrayRecord, content[ARRAYS])), weight)


def _add_part(sums: Sums, part: RecordDict) -> None:
    for key, weight in cast(MetricRecord, part[WEIGHTS]).items():
        arrays = read_arrays(cast(ArrayRecord, part[MEAN + key]))
        sums.setdefault(key, WeightedSum()).add(arrays, float(cast(float, weight)))
