"""Faults in answers: what keeps a reply from being what a request for predictions asked for."""

from typing import cast

import numpy as np
from flwr.app import ArrayRecord, RecordDict

from clients.messages.arrays import read_arrays
from clients.messages.field import NO_FIELDS, Fields
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


def fault_in_answers(
    asked: PredictionRequest, client_id: int, content: RecordDict, fields: Fields = NO_FIELDS
) -> str | None:
    """Compare answers with what was asked.

    Args:
        asked: For them.
        client_id: Whom.
        content: Of the reply.
        fields: What can be asked for beside logits and a discriminator's probabilities.

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
        **({} if asked.sites == 1 else {"sites": asked.sites}),
    }
    for key, value in expected.items():
        if config.get(key) != value or type(config[key]) is not type(value):
            return f"'{key}' is {config.get(key)!r}, expected {value!r}"
    return _fault_in_arrays(read_arrays(cast(ArrayRecord, content[PREDICTIONS])), asked, fields)


def _fault_in_arrays(arrays: Parameters, request: PredictionRequest, known: Fields) -> str | None:
    fields = request.asks(known)
    size = request.num_inputs, request.num_classes, request.sites
    for name, each in fields.items():
        if reason := each.fault_in(name, arrays, *size):
            return reason
    for name, array in arrays.items():
        if name == "mask":
            if array.shape != size[:1] or array.dtype != np.bool_:
                return (
                    f"array 'predictions/mask' is {array.dtype} {array.shape}, "
                    f"expected {np.dtype(np.bool_)} {size[:1]}"
                )
        elif not any(each.sends(own, name) for own, each in fields.items()):
            return f"{name} sent but not asked for"
    return None
