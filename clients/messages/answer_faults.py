"""Faults in answers: what keeps a reply from being what a request for predictions asked for."""

from typing import cast

import numpy as np
from flwr.app import ArrayRecord, RecordDict

from clients.messages.arrays import read_arrays
from clients.messages.codecs import expected_arrays, largest_logit
from clients.messages.requests import (
    ARRAYS,
    CONFIG,
    METRICS,
    PREDICTIONS,
    PredictionRequest,
    crc32_of,
)
from clients.messages.sizes import NUM_EXAMPLES
from clients.models.factory import Parameters

MAX_LOGIT = 1e30
"""Largest size of a logit: divided by a temperature of 1e-8 it is still finite in float32."""


def fault_in_answers(asked: PredictionRequest, client_id: int, content: RecordDict) -> str | None:
    """Compare answers with what was asked.

    Args:
        asked: For them.
        client_id: Whom.
        content: Of the reply.

    Returns:
        The reason to reject the reply, or None.
    """
    for name in (CONFIG, PREDICTIONS, METRICS):
        if name not in content:
            return f"a predictions reply lacks '{name}'"
    if NUM_EXAMPLES not in content[METRICS]:
        return f"a predictions reply lacks '{NUM_EXAMPLES}'"
    if asked.send_parameters and ARRAYS not in content:
        return "a predictions reply lacks the parameters that were asked for"
    config = content[CONFIG]
    expected = {
        "server-round": asked.server_round,
        "client-id": client_id,
        "inputs-crc32": crc32_of(asked.proxy_ids),
        "answers": asked.answers,
    }
    for key, value in expected.items():
        if config.get(key) != value or type(config[key]) is not type(value):
            return f"'{key}' is {config.get(key)!r}, expected {value!r}"
    return _fault_in_arrays(read_arrays(cast(ArrayRecord, content[PREDICTIONS])), asked)


def _fault_in_arrays(arrays: Parameters, request: PredictionRequest) -> str | None:
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
    if not largest_logit(arrays) <= MAX_LOGIT:
        return f"array 'predictions/{next(iter(required))}' goes beyond {MAX_LOGIT:.0e}"
    own_probs = arrays.get("own-probs")
    if own_probs is not None and not ((own_probs >= 0) & (own_probs <= 1)).all():
        return "array 'predictions/own-probs' leaves [0, 1]"
    return None
