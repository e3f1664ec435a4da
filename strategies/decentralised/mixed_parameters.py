"""What neighbours' parameters come to, where the receiver is; how far all are from their mean."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from clients.handlers.peer_parameters import MIXED, PUSH_WEIGHT
from clients.handlers.reply_faults import MAX_PARAMETER
from clients.handlers.state import PUSH
from clients.messages.arrays import is_float, read_arrays, write_arrays
from clients.messages.payload_routing import Letter
from clients.messages.requests import ARRAYS, METRICS
from clients.models.factory import Parameters
from strategies.aggregation.parameters import WeightedSum, cast_to, odd_form
from strategies.decentralised.late_messages import round_of

SPREAD = "spread"
"""Name of the record with number and squared norms of summed parameters."""

LEAST_WEIGHT = 1e-30
"""Least weight that a peer may push: what it is divided by; below, its numerators have no digits
in float32."""

Letters = Sequence[tuple[Letter, RecordDict]]


def mixed_parameters(receiver: int, letters: Letters, *, push: bool = False) -> RecordDict:
    """Add up what neighbours sent: sum_j W_ij x_j, in float64, in the order of senders.

    Args:
        receiver: Whose sum it is.
        letters: Parameters of equal architectures, by sender.
        push: Whether they are numerators, whose weights are to be summed too.

    Returns:
        The sum, in the dtypes of what was sent; whole numbers, such as batch norms' counts, are
        rounded, and where parameters are numerators their weighted mean is taken.
    """
    floats, counts = WeightedSum(), WeightedSum()
    arrays: Parameters = {}
    for letter, payload in letters:
        mass = letter.weight
        if push:
            mass *= float(cast(Any, payload[METRICS])[PUSH_WEIGHT])
        arrays = read_arrays(cast(ArrayRecord, payload[ARRAYS]))
        floats.add({n: each for n, each in arrays.items() if is_float(each.dtype)}, letter.weight)
        counts.add({n: each for n, each in arrays.items() if not is_float(each.dtype)}, mass)
    mixed = floats.sum() | (counts.mean() if push else counts.sum())  # counts are no numerators
    records: dict[str, Any] = {MIXED: write_arrays({name: mixed[name] for name in arrays})}
    if push:
        records[PUSH] = MetricRecord({PUSH_WEIGHT: counts.weight})
    return RecordDict(records)


def without_arrays(content: RecordDict) -> RecordDict:
    """Reduce a reply to its metrics."""
    return RecordDict({METRICS: content[METRICS]} if METRICS in content else {})


def fault_in_own(
    request: Message, reply: Message, *, forms: Mapping[str, str], push: bool = False
) -> str | None:
    """Say why parameters that a peer sends its neighbours are of no use to them.

    Args:
        request: Not looked at.
        reply: What it sends.
        forms: What parameters look like, by name: "float32[10, 64]".
        push: Whether a weight must come along.

    Returns:
        Which name or array is odd; None if they can be mixed.
    """
    record = reply.content.get(ARRAYS)
    if not isinstance(record, ArrayRecord):
        return "it sends no parameters"
    if odd := odd_form(record, forms):
        return odd
    return _fault_in_weight(reply.content, record) if push else None


def _fault_in_weight(content: RecordDict, record: ArrayRecord) -> str | None:
    metrics: Any = content.get(METRICS) or {}
    weight = metrics.get(PUSH_WEIGHT)
    if not isinstance(weight, int | float) or not LEAST_WEIGHT <= weight <= 1 / LEAST_WEIGHT:
        return f"'{PUSH_WEIGHT}' is {weight}, expected in [{LEAST_WEIGHT}, {1 / LEAST_WEIGHT}]"
    for name, array in read_arrays(record).items():
        if (
            is_float(array.dtype)
            and array.size
            and not np.abs(array).max() / weight <= MAX_PARAMETER
        ):
            return f"array '{name}' divided by '{PUSH_WEIGHT}' goes beyond {MAX_PARAMETER:.0e}"
    return None


def only_received(receiver: int, letters: Letters) -> RecordDict:
    """Hand on what one neighbour sent: of several, where one came late, the latest."""
    _, payload = max(letters, key=lambda each: (round_of(each[0].name), each[0].sender))
    return RecordDict({MIXED: payload[ARRAYS]})


# --- consensus ---


class Spread:
    """Sums of parameters and buffers, and squared norms of parameters, in float64."""

    def __init__(self, *, buffers: Collection[str] = ()) -> None:
        """Begin with none.

        Args:
            buffers: Names of what are no parameters, such as batch norm's statistics.
        """
        self._buffers = buffers
        self._sums = WeightedSum()
        self._count, self._squares = 0.0, 0.0

    def add(self, content: RecordDict) -> None:
        """Take in a peer's parameters."""
        arrays = self._summed(content)
        self._count += 1.0
        self._squares += sum(
            float((array.astype(np.float64) ** 2).sum())
            for name, array in arrays.items()
            if is_float(array.dtype) and name not in self._buffers
        )

    def merge(self, part: RecordDict) -> None:
        """Take in the sums of others."""
        self._summed(part)
        known = cast(Any, part[SPREAD])
        self._count += known["count"]
        self._squares += known["squares"]

    def part(self) -> RecordDict:
        """Return the sums."""
        spread = MetricRecord({"count": self._count, "squares": self._squares})
        return RecordDict({ARRAYS: write_arrays(self._sums.arrays), SPREAD: spread})

    def _summed(self, content: RecordDict) -> Parameters:
        arrays = read_arrays(cast(ArrayRecord, content[ARRAYS]))
        self._sums.add(arrays, 1.0)
        return arrays


def mean_and_distance(
    part: RecordDict, like: Parameters, buffers: Collection[str] = ()
) -> tuple[Parameters, float]:
    """Finish what `Spread` began.

    Args:
        part: Of all peers.
        like: Parameters with the dtypes that the mean is to have.
        buffers: As it was told.

    Returns:
        The mean of all arrays, and of parameters the consensus distance, mean_i ||x_i - mean||^2
        (0 = all equal; rounding may leave 1e-16 of the squared norms).
    """
    sums = read_arrays(cast(ArrayRecord, part[ARRAYS]))
    known = cast(Any, part[SPREAD])
    means = {name: value / known["count"] for name, value in sums.items()}
    floats = [means[n] for n, array in like.items() if is_float(array.dtype) and n not in buffers]
    squared = sum(float((value**2).sum()) for value in floats)
    distance = max(0.0, known["squares"] / known["count"] - squared)
    return cast_to({name: array.dtype for name, array in like.items()}, means), distance
