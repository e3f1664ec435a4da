"""Is this reply fit to be used? One check for every strategy, before it sees the reply."""

from typing import cast

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from clients.answers import expected_arrays, largest_logit
from clients.architectures import Parameters
from clients.arrays import read_arrays
from clients.feature_exchange import fault_in_features, requested_inputs
from clients.messages import (
    ARRAYS,
    CONFIG,
    EVALUATE_FEATURES,
    METRICS,
    PREDICTIONS,
    PredictionRequest,
    client_id_of,
    crc32_of,
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
    the request's. Where it asked for predictions or features, they must be those.

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
    # Not content.array_records: it refers to the content and back, and a reply of some megabytes
    # would wait for the garbage collector.
    for name, record in content.items():
        reason = None
        if isinstance(record, ArrayRecord):
            sent = asked.get(name)
            reason = _fault_in_arrays(name, record, sent if isinstance(sent, ArrayRecord) else None)
        elif isinstance(record, MetricRecord):
            reason = _fault_in_metrics(name, record)
        if reason:
            return reason
    if request.metadata.message_type.endswith(f".{PREDICTIONS}"):
        client_id = client_id_of(request.metadata.dst_node_id)
        return _fault_in_predictions(read_request(asked), client_id, content)
    if request.metadata.message_type == EVALUATE_FEATURES:
        return fault_in_features(content, requested_inputs(asked))
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


def _fault_in_predictions(
    request: PredictionRequest, client_id: int, content: RecordDict
) -> str | None:
    for name in (CONFIG, PREDICTIONS, METRICS):
        if name not in content:
            return f"a predictions reply lacks '{name}'"
    if "num-examples" not in content[METRICS]:
        return "a predictions reply lacks 'num-examples'"
    if request.send_parameters and ARRAYS not in content:
        return "a predictions reply lacks the parameters that were asked for"
    config = content[CONFIG]
    expected = {
        "server-round": request.server_round,
        "client-id": client_id,
        "inputs-crc32": crc32_of(request.proxy_ids),
        "answers": request.answers,
    }
    for key, value in expected.items():
        if config.get(key) != value:
            return f"'{key}' is {config.get(key)!r}, expected {value!r}"
    return _fault_in_answers(read_arrays(cast(ArrayRecord, content[PREDICTIONS])), request)


def _fault_in_answers(arrays: Parameters, request: PredictionRequest) -> str | None:
    num_inputs = request.num_inputs
    required = dict(expected_arrays(request.answers, num_inputs, request.num_classes))
    if request.recipe is not None:
        required["own-probs"] = ((num_inputs,), np.float32)
    allowed = required | {"mask": ((num_inputs,), np.bool_)}
    for name in required:
        if name not in arrays:
            return f"{name} missing"
    for name, array in arrays.items():
        if name not in allowed:
            return f"{name} sent but not asked for"
        shape, dtype = allowed[name]
        if array.shape != shape or array.dtype != dtype:
            return (
                f"array 'predictions/{name}' is {array.dtype} {array.shape}, "
                f"expected {np.dtype(dtype)} {shape}"
            )
    if largest_logit(arrays) > MAX_LOGIT:
        return f"array 'predictions/{next(iter(required))}' goes beyond {MAX_LOGIT:.0e}"
    own_probs = arrays.get("own-probs")
    if own_probs is not None and not ((own_probs >= 0) & (own_probs <= 1)).all():
        return "array 'predictions/own-probs' leaves [0, 1]"
    return None
