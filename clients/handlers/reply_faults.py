"""Is this reply fit to be used? One check for every strategy, before it sees the reply."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord

from clients.handlers.base import Handler
from clients.messages.arrays import PLAIN, read_arrays
from clients.messages.requests import ARRAYS, CONFIG, METRICS, NOTES
from clients.messages.sizes import NUM_EXAMPLES

MAX_EXAMPLES = 1e12
"""Largest private set that a client may claim; beyond 3e38 a float32 weight would be infinite."""

MAX_PARAMETER = 1e15
"""Largest size of a parameter, and of any number in an array that is no answer. Times MAX_EXAMPLES,
summed over 10^11 clients, it is finite in float32; so are squared differences of 80 million of
them, as Flower's adaptive and Byzantine-robust strategies sum them up."""

MAX_METRIC = 1e30
"""Largest size of a metric; means weighed by MAX_EXAMPLES are finite, in float64 anyway."""

MAX_NAME = 256
"""Most characters of a name: it becomes a column of a table and a part of a line."""

USUAL: dict[str, type] = {
    **{ARRAYS: ArrayRecord, CONFIG: ConfigRecord},
    **{METRICS: MetricRecord, NOTES: ConfigRecord},
}
"""What the records are whose names are ours in every message."""


def fault_of(request: Message, reply: Message, handler: Handler | None = None) -> str | None:
    """Compare a reply with its request.

    The sender must be who was asked, every name a name, every record of the kind that its name
    says, every array plain numbers and what its header says, every number finite and of a size that
    can be summed; and `num-examples`, by which Flower's strategies and some of ours weigh, a whole
    number from 1 to `MAX_EXAMPLES`. Where the request carried a record with the same name and the
    same array names (parameters out, parameters back), shapes must be the request's, and numbers of
    its kind. What a handler of ours was asked, it says itself: the records that may come back, and
    what is a fault in them. Sums that are made on the way have other names, and no client may pass
    for a sum.

    Args:
        request: What the client received.
        reply: What it answered, with content.
        handler: Of ours, that answered; None = anyone's code did.

    Returns:
        The reason to reject the reply, or None.
    """
    try:
        return _fault(request, reply, handler)
    except Exception as error:  # a reply can hold anything, and must not end the run
        return f"cannot be read: {type(error).__name__}: {error}"


def _fault(request: Message, reply: Message, handler: Handler | None) -> str | None:
    asked, content = request.content, reply.content
    if reply.metadata.src_node_id != request.metadata.dst_node_id:
        return f"answers in the name of node {reply.metadata.src_node_id}"
    if reply.metadata.reply_to_message_id != request.metadata.message_id:
        return f"answers message {reply.metadata.reply_to_message_id!r}, which is another one"
    kinds = None if handler is None else handler.replies
    limits = {} if handler is None else handler.limits
    # Not content.array_records: it refers to the content and back, and a reply of some megabytes
    # would wait for the garbage collector.
    for name, record in content.items():
        wanted = (kinds or {}).get(name) or USUAL.get(name)
        limit = limits.get(name, MAX_PARAMETER)
        if reason := _fault_in_record(name, record, asked.get(name), wanted, limit):
            return reason
        lists = [key for key, value in record.items() if isinstance(value, list)]
        if kinds is not None and isinstance(record, MetricRecord) and lists:
            return f"metric '{name}/{lists[0]}' is a list, expected a number"
    if kinds is not None and (unasked := sorted(set(content) - {*kinds, NOTES})):
        return f"sends '{unasked[0]}', which was not asked for"
    return None if handler is None or handler.fault is None else handler.fault(request, reply)


def _fault_in_record(
    name: str, record: Any, sent: Any, wanted: type | None, limit: float
) -> str | None:
    wanted = wanted or (object if sent is None else type(sent))
    if not issubclass(type(record), wanted):
        return f"record '{name}' is of {type(record).__name__}, expected {wanted.__name__}"
    for key in (name, *record):
        if not (0 < len(key) <= MAX_NAME and key.isprintable()):
            return f"{key[:MAX_NAME]!r} is no name: expected 1 to {MAX_NAME} printable characters"
    if isinstance(record, ArrayRecord):
        return _fault_in_arrays(name, record, sent, limit)
    if isinstance(record, MetricRecord):
        return _fault_in_metrics(name, record)
    if name == NOTES:  # they go into the same tables
        return _fault_in_metrics(name, record)
    return _fault_in_config(name, record)


def _fault_in_config(name: str, config: ConfigRecord) -> str | None:
    for key, value in config.items():
        for each in value if isinstance(value, list) else [value]:
            if not isinstance(each, bool | int | float | str | bytes):
                return f"'{name}/{key}' holds {type(each).__name__}, expected numbers or text"
            if isinstance(each, int) and not -(2**63) <= each < 2**63:
                return f"'{name}/{key}' holds an integer that 64 bits do not"
    return None


def _fault_in_metrics(name: str, metrics: Mapping[str, Any]) -> str | None:
    for key, value in metrics.items():
        where = f"metric '{name}/{key}'"
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, bool) or not isinstance(each, int | float):
                return f"{where} holds {type(each).__name__}, expected numbers"
            if not -MAX_METRIC <= each <= MAX_METRIC:
                finite = isinstance(each, int) or np.isfinite(each)
                return (
                    f"{where} goes beyond {MAX_METRIC:.0e}"
                    if finite
                    else (f"{where} is {value}, which is not finite")
                )
        if key == NUM_EXAMPLES and not (
            not isinstance(value, list) and 1 <= value <= MAX_EXAMPLES and value == int(value)
        ):
            return f"{where} is {value}, expected a whole number from 1 to {MAX_EXAMPLES:.0e}"
    return None


def _fault_in_arrays(
    name: str, record: ArrayRecord, sent: ArrayRecord | None, limit: float
) -> str | None:
    for key, raw in record.items():
        if raw.dtype not in PLAIN:  # before it is read: numpy reads texts, dates and structs too
            return f"array '{name}/{key}' has dtype {raw.dtype}, expected one of {', '.join(PLAIN)}"
    arrays = read_arrays(record)
    like = sent if sent is not None and set(sent) == set(record) else {}
    for key, array in arrays.items():
        said = record[key].dtype, tuple(record[key].shape)
        if (str(array.dtype), array.shape) != said:
            return (
                f"array '{name}/{key}' is {array.dtype} {array.shape}, and says that it is {said}"
            )
        reason = _fault_in_values(array, limit, bool(like)) or _unlike(array, like.get(key))
        if reason:
            return f"array '{name}/{key}' {reason}"
    return None


def _fault_in_values(array: npt.NDArray[Any], limit: float, whole_too: bool) -> str | None:
    """Look for numbers that cannot be summed; whole numbers may be anything but parameters."""
    floats = np.issubdtype(array.dtype, np.floating)
    if array.size == 0 or not (floats or (whole_too and np.issubdtype(array.dtype, np.integer))):
        return None
    # Neither abs nor isfinite: their copies take longer than both passes.
    if -limit <= float(array.min()) and float(array.max()) <= limit:  # False if one is NaN
        return None
    if floats and (count := int(array.size - np.isfinite(array).sum())):
        return f"has {count} of {array.size} values that are not finite"
    return f"goes beyond {limit:.0e}"


def _unlike(array: npt.NDArray[Any], sent: Array | None) -> str | None:
    """Say what tells a parameter from the one that was sent."""
    # Not bytes: the boosted trees of Flower's XGBoost strategies grow from round to round.
    if sent is None or sent.dtype == "uint8":
        return None
    if tuple(sent.shape) != array.shape:
        return f"has shape {array.shape}, expected {tuple(sent.shape)}"
    wanted = np.dtype(sent.dtype)
    # Wider or narrower is a strategy's or a framework's habit; half precision is a loss.
    if array.dtype == np.float16 != wanted:
        return f"has dtype float16, expected {sent.dtype}"
    # A whole number stays one; but a count that was averaged is a float, and comes back as whole.
    counts = wanted.kind == "f" and array.ndim == 0 and array.dtype.kind in "iu"
    kinds = {"f": "f", "i": "iuf", "u": "iuf", "b": "biuf"}
    if array.dtype.kind not in kinds.get(wanted.kind, "biuf") and not counts:
        return f"has dtype {array.dtype}, expected {sent.dtype}"
    return None
