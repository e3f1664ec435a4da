"""Is this reply fit to be used? One check for every strategy, before it sees the reply."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from clients.messages import (
    PREDICTIONS,
    PredictionReply,
    PredictionRequest,
    crc32_of,
    read_arrays,
    read_reply,
    read_request,
)

MAX_EXAMPLES = 1e12
"""Largest private set that a client may claim; beyond 3e38 a float32 weight would be infinite."""

MAX_LOGIT = 1e30
"""Largest size of a logit: divided by a temperature of 1e-8 it is still finite in float32."""


def fault_of(request: Message, reply: Message) -> str | None:
    """Compare a reply with its request.

    The sender must be who was asked, every array and metric finite, and `num-examples`, by which
    Flower's strategies and some of ours weigh, positive. Where the request carried a record with
    the same name and the same array names (parameters out, parameters back), the shapes must be
    the request's. Where it asked for predictions, the answers must be those.

    Args:
        request: What the client received.
        reply: What it answered, with content.

    Returns:
        The reason to reject the reply, or None.
    """
    try:
        return _fault(request, reply)
    except Exception as error:  # a reply can hold anything, and must not end the run
        return f"cannot be read: {type(error).__name__}: {error}"


def _fault(request: Message, reply: Message) -> str | None:
    asked, content = request.content, reply.content
    if reply.metadata.src_node_id != request.metadata.dst_node_id:
        return f"answers in the name of node {reply.metadata.src_node_id}"
    for name, record in content.array_records.items():
        if reason := _fault_in_arrays(name, record, asked.array_records.get(name)):
            return reason
    for name, metrics in content.metric_records.items():
        if reason := _fault_in_metrics(name, metrics):
            return reason
    if request.metadata.message_type.endswith(f".{PREDICTIONS}"):
        return _fault_in_predictions(read_request(asked), content)
    return None


def _fault_in_metrics(name: str, metrics: MetricRecord) -> str | None:
    for key, value in metrics.items():
        if not np.isfinite(value).all():
            return f"metric '{name}/{key}' is {value}, which is not finite"
        if key == "num-examples" and (isinstance(value, list) or not 0 < value <= MAX_EXAMPLES):
            return f"metric '{name}/{key}' is {value}, expected in (0, {MAX_EXAMPLES:.0e}]"
    return None


def _fault_in_arrays(name: str, record: ArrayRecord, sent: ArrayRecord | None) -> str | None:
    arrays = read_arrays(record)
    for key, array in arrays.items():
        if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
            count = int(array.size - np.isfinite(array).sum())
            return f"array '{name}/{key}' has {count} of {array.size} values that are not finite"
    if sent is None or set(sent) != set(record):
        return None
    # Not bytes: the boosted trees of Flower's XGBoost strategies grow from round to round.
    arrays = {key: array for key, array in arrays.items() if sent[key].dtype != "uint8"}
    for key, array in arrays.items():
        if tuple(sent[key].shape) != array.shape:
            return (
                f"array '{name}/{key}' has shape {array.shape}, expected {tuple(sent[key].shape)}"
            )
        # Wider or narrower is a strategy's or a framework's habit; half precision is a loss.
        if array.dtype == np.float16 and sent[key].dtype != "float16":
            return f"array '{name}/{key}' has dtype float16, expected {sent[key].dtype}"
    return None


def _fault_in_predictions(request: PredictionRequest, content: RecordDict) -> str | None:
    try:
        reply = read_reply(content)
    except ValueError as missing:
        return str(missing)
    if reply.server_round != request.server_round:
        return f"answers round {reply.server_round}, expected {request.server_round}"
    if reply.inputs_crc32 != crc32_of(request.proxy_ids):
        return "answers other examples than the request's"
    if (reply.own_probs is None) != (request.recipe is None):
        return "own-probs sent but not asked for" if request.recipe is None else "own-probs missing"
    return _fault_in_answers(reply, request.num_inputs, request.num_classes)


def _fault_in_answers(reply: PredictionReply, num_inputs: int, num_classes: int) -> str | None:
    expected: Mapping[str, tuple[npt.NDArray[np.generic] | None, tuple[int, ...], type]] = {
        "logits": (reply.logits, (num_inputs, num_classes), np.float32),
        "own-probs": (reply.own_probs, (num_inputs,), np.float32),
        "mask": (reply.mask, (num_inputs,), np.bool_),
    }
    for name, (array, shape, dtype) in expected.items():
        if array is not None and (array.shape != shape or array.dtype != dtype):
            return (
                f"array 'predictions/{name}' is {array.dtype} {array.shape}, "
                f"expected {np.dtype(dtype)} {shape}"
            )
    if np.abs(reply.logits).max() > MAX_LOGIT:
        return f"array 'predictions/logits' goes beyond {MAX_LOGIT:.0e}"
    if reply.own_probs is not None and not ((reply.own_probs >= 0) & (reply.own_probs <= 1)).all():
        return "array 'predictions/own-probs' leaves [0, 1]"
    return None
