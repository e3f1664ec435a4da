"""Is this reply fit to be used? One check for every strategy, before it sees the reply."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, Message, RecordDict

from clients.messages import (
    PREDICTIONS,
    PredictionReply,
    PredictionRequest,
    crc32_of,
    read_arrays,
    read_reply,
    read_request,
)


def fault_of(request: Message, reply: Message) -> str | None:
    """Compare a reply with its request.

    Every array must be finite. Where the request carried a record with the same name and the same
    array names (parameters out, parameters back), the shapes must be the request's. Where it
    asked for predictions, the answers must be the ones that were asked for.

    Args:
        request: What the client received.
        reply: What it answered, with content.

    Returns:
        The reason to reject the reply, or None.
    """
    content, asked = reply.content, request.content
    for name, record in content.array_records.items():
        if reason := _fault_in_arrays(name, record, asked.array_records.get(name)):
            return reason
    if request.metadata.message_type.endswith(f".{PREDICTIONS}"):
        return _fault_in_predictions(read_request(asked), content)
    return None


def _fault_in_arrays(name: str, record: ArrayRecord, sent: ArrayRecord | None) -> str | None:
    arrays = read_arrays(record)
    for key, array in arrays.items():
        if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
            count = int(array.size - np.isfinite(array).sum())
            return f"array '{name}/{key}' has {count} of {array.size} values that are not finite"
    if sent is None or set(sent) != set(record):
        return None
    for key, array in arrays.items():
        if tuple(sent[key].shape) != array.shape:
            return (
                f"array '{name}/{key}' has shape {array.shape}, expected {tuple(sent[key].shape)}"
            )
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
    if reply.num_examples < 1:
        return f"num-examples is {reply.num_examples}, expected >= 1"
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
    if reply.own_probs is not None and not ((reply.own_probs >= 0) & (reply.own_probs <= 1)).all():
        return "array 'predictions/own-probs' leaves [0, 1]"
    return None
