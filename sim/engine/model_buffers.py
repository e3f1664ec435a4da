"""What a strategy of Flower's does not know of arrays: which are parameters, and their dtypes.

Its optimisers step whatever they get: running variances below zero, counters that are no integers,
float64 from a float32 model. Here running statistics and counters are averaged, and what comes back
has the dtypes of what was sent.
"""

from collections.abc import Collection, Iterable
from copy import copy
from traceback import walk_tb
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.exception import InconsistentMessageReplies
from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedMedian,
    FedTrimmedAvg,
    Krum,
    MultiKrum,
    QFedAvg,
    Strategy,
)
from torch import nn

from clients.duck_typing import told
from clients.messages.accumulator import Receiving
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.sizes import NUM_EXAMPLES
from clients.models.factory import buffer_names
from sim.engine.global_model_check import pair_of

ROBUST = (FedMedian, FedTrimmedAvg, Krum, MultiKrum, Bulyan)
"""Bear a liar among the clients, which a mean of statistics would not: theirs is the median."""

PRIVATE = (
    DifferentialPrivacyServerSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
)

Numbers = dict[str, npt.NDArray[Any]]


def buffers_of(student: nn.Module, strategy: Strategy) -> set[str]:
    """Name the buffers among a model's arrays.

    Args:
        student: The global model.
        strategy: What will aggregate it.

    Returns:
        The names of its state that are no parameters.

    Raises:
        ValueError: There are some, and the strategy promises privacy: statistics would have none.
    """
    found = buffer_names(student)
    if found and isinstance(strategy, PRIVATE):
        raise ValueError(
            f"{type(strategy).__name__} clips and noises parameters, but '{min(found)}' is a "
            "statistic of private data, which would go out as it is: take a student without batch "
            "norm, as with student.norm=group"
        )
    return found


def aggregated_train(
    strategy: Strategy,
    server_round: int,
    sent: ArrayRecord,
    buffers: Collection[str],
    replies: list[Message],
) -> tuple[ArrayRecord | None, MetricRecord | None]:
    """Let a strategy aggregate what clients trained; see to buffers and dtypes.

    Args:
        strategy: Any.
        server_round: 1..R.
        sent: The global model's arrays before the round.
        buffers: Names of those that are no parameters.
        replies: To the round's requests.

    Returns:
        What the strategy returned, the buffers averaged, with the dtypes of `sent`.
    """
    if isinstance(strategy, Receiving):  # one that folds, ours, averages buffers itself
        found = strategy.aggregate_train(server_round, replies)
        return _kept(sent, *pair_of(strategy, server_round, found), {})
    robust, key = isinstance(strategy, ROBUST), weight_key(strategy)
    means = _averaged(replies, buffers, robust, key) if buffers else {}
    # All replies agree in buffers: no distance between clients, and no norm, is one of counters.
    shown = _sent_back(sent, means) if isinstance(strategy, QFedAvg) else means
    if means:
        replies = [_with_buffers(reply, shown) for reply in replies]
    found = strategy.aggregate_train(server_round, replies)
    return _kept(sent, *pair_of(strategy, server_round, found), means)


def of_its_own(strategy: Strategy, error: BaseException) -> bool:
    """Tell whether a user's strategy raised an error by itself, and not Flower's below it.

    Flower's fail in the middle where replies disagree; a misspelt name is no reply's fault.
    """
    own = {kind.__module__ for kind in type(strategy).__mro__} - {"builtins"}
    for frame, _ in reversed([*walk_tb(error.__traceback__)]):
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("flwr."):
            return False
        if module in own:
            return True
    return False


def _kept(
    sent: ArrayRecord, found: ArrayRecord | None, metrics: MetricRecord | None, means: Numbers
) -> tuple[ArrayRecord | None, MetricRecord | None]:
    if not isinstance(found, ArrayRecord):  # nothing, or a fault that is named later
        return found, metrics
    return _like(sent, found, means), metrics


def weight_key(strategy: Strategy) -> str:
    """Name the metric by which a strategy weighs replies."""
    key = told(strategy, "weighted_by_key")
    return key if isinstance(key, str) else NUM_EXAMPLES


def _averaged(
    replies: Iterable[Message], names: Collection[str], robust: bool, key: str
) -> Numbers:
    """Average buffers over replies by their weights, as Flower's FedAvg does to the bit."""
    rows, weights = [], []
    for reply in replies:
        if reply.has_content() and (arrays := _arrays_of(reply.content, names)) is not None:
            rows.append(arrays)
            weights.append(_weight_in(reply.content, key))
    if not rows:
        return {}
    if robust:
        return {n: np.asarray(np.median(np.stack([r[n] for r in rows]), axis=0)) for n in names}
    shares = [weight / sum(weights) for weight in weights]
    means = {name: np.asarray(rows[0][name] * shares[0]) for name in names}
    for arrays, share in zip(rows[1:], shares[1:], strict=True):
        for name in names:
            means[name] = np.asarray(means[name] + arrays[name] * share)
    return means


def _weight_in(content: RecordDict, key: str) -> float:
    for record in content.values():
        if isinstance(record, MetricRecord) and isinstance(weight := record.get(key), int | float):
            return float(weight)
    raise InconsistentMessageReplies(f"a reply lacks the number '{key}', by which it is weighed")


def _place_of(content: RecordDict, names: Collection[str]) -> str | None:
    """Name the record that has such arrays: a strategy may call it anything."""
    for name, record in content.items():
        if isinstance(record, ArrayRecord) and set(names) <= set(record):
            return name
    return None


def _arrays_of(content: RecordDict, names: Collection[str]) -> Numbers | None:
    if (place := _place_of(content, names)) is None:
        return None
    record = cast(ArrayRecord, content[place])
    return {name: record[name].numpy() for name in names}


def _sent_back(sent: ArrayRecord, means: Numbers) -> Numbers:
    """Return what was sent, where counters may be scaled in place: as floats."""
    arrays = read_arrays(sent)
    return {name: np.asarray(arrays[name], dtype=means[name].dtype) for name in means}


def _with_buffers(reply: Message, buffers: Numbers) -> Message:
    """Return a reply with other buffers; the reply itself may be looked at again."""
    if not reply.has_content() or (place := _place_of(reply.content, buffers)) is None:
        return reply
    record = cast(ArrayRecord, reply.content[place])
    mine = write_arrays(buffers)
    shown = copy(reply)
    arrays = ArrayRecord({n: mine.get(n, array) for n, array in record.items()})
    shown.content = RecordDict({**reply.content, place: arrays})
    return shown


def _like(sent: ArrayRecord, found: ArrayRecord, means: Numbers) -> ArrayRecord:
    """Cast arrays to the dtypes that they were sent with; integers are rounded to."""
    given, changed = read_arrays(sent), Numbers()
    for name, array in {**read_arrays(found), **means}.items():
        dtype = given[name].dtype if name in given else array.dtype
        rounded = np.rint(array) if np.issubdtype(dtype, np.integer) else array
        if array.dtype != dtype or name in means:
            with np.errstate(over="ignore"):  # infinite: a check of what is kept will say so
                changed[name] = np.asarray(rounded).astype(dtype)
    written = write_arrays(changed)
    return ArrayRecord({n: written.get(n, array) for n, array in found.items()})
