"""Conformance of handlers: what clients do with a message."""

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from clients.app import SimulatedApp
from clients.handlers.base import SERVER_ROUND, Handler
from clients.handlers.reply_faults import fault_of
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import ARRAYS, CONFIG, node_id_of
from clients.models.factory import build, parameters_of
from clients.points import Check
from strategies.conformance.checks import unlike
from strategies.conformance.made_up import SMALL, crowd

THREE = (0, 2, 3)
"""Clients that are asked."""


def request_of(handler: Handler, client_id: int) -> Message:
    """Make up a request of round 1: of its records "arrays" alone, the student's parameters."""
    config = ConfigRecord({SERVER_ROUND: 1} if SERVER_ROUND in handler.keys else {})
    content = RecordDict({CONFIG: config})
    if ARRAYS in handler.records:
        task = crowd().splits.private.task
        content[ARRAYS] = write_arrays(parameters_of(build(SMALL, task, np.random.default_rng(0))))
    return Message(content, node_id_of(client_id), handler.kind)


def _served(handler: Handler, client_ids: Sequence[int]) -> list[tuple[Message, Any]]:
    """Ask some clients at once; return each request with what was answered, or raised."""
    app = SimulatedApp(crowd(), (handler,))
    requests = [request_of(handler, client_id) for client_id in client_ids]
    contexts = [
        Context(1, node_id_of(k), {"partition-id": k, "num-partitions": 4}, RecordDict(), {})
        for k in client_ids
    ]
    return list(zip(requests, app.serve(requests, contexts), strict=False))


def _content(reply: Any) -> dict[str, Any]:
    """Flatten a reply's numbers; an exception is raised."""
    if isinstance(reply, Exception):
        raise reply
    found = dict[str, Any]()
    for name, record in reply.content.items():
        values = read_arrays(record) if isinstance(record, ArrayRecord) else dict(record)
        found |= {f"{name}/{key}": value for key, value in values.items()}
    return found


def _is_one(handler: Any) -> str | None:
    """Is a Handler, which can be sent to workers: no functions within functions."""
    if not isinstance(handler, Handler):
        return f"is a {type(handler).__name__}, expected a clients.handlers.base.Handler"
    pickle.dumps(handler)
    return None


def _answers(handler: Handler) -> str | None:
    """Answers each of three clients by a reply that is of use, and keeps nothing but states."""
    answered = _served(handler, THREE)
    for request, reply in answered:
        if isinstance(reply, Exception):
            return f"a client fails: {type(reply).__name__}: {reply}"
        if fault := fault_of(request, reply, handler):
            return f"a reply is of no use: {fault}"
    return None if len(answered) == 3 else f"gives {len(answered)} answers to 3 requests"


def _answers_alone(handler: Handler) -> str | None:
    """Answers a client together with others as alone, and the same again."""
    together = [_content(reply) for _, reply in _served(handler, THREE)]
    for client_id, beside in zip(THREE, together, strict=True):
        alone = _content(_served(handler, [client_id])[0][1])
        if alone.keys() != beside.keys():
            return f"names differ: {sorted(alone.keys() ^ beside.keys())[:4]}"
        for name, value in alone.items():
            texts = isinstance(value, str | bytes)
            if value != beside[name] if texts else unlike(value, beside[name], 1e-4):
                return f"client {client_id} says another '{name}'"
    return None


def _counts(handler: Handler) -> str | None:
    """Counts multiplications, if it does, as a finite number >= 0."""
    if handler.multiplications is None:
        return None
    for client_id in THREE:
        found = handler.multiplications(crowd(), client_id, request_of(handler, client_id).content)
        if not 0 <= found < np.inf:
            return f"counts {found}"
    return None


HANDLER: tuple[Check, ...] = (_is_one, _answers, _answers_alone, _counts)
