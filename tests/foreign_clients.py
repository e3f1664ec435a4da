"""ClientApps written against Flower alone."""

import random
import sys
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord
from flwr.app import RecordDict as Content
from flwr.clientapp import ClientApp

from clients.messages.requests import node_id_of

OFFSETS = (1.0, 2.0, 4.0, 8.0, 100.0, 0.0)
"""What the foreign client k adds to every array; it claims k + 1 examples."""


def foreign_app() -> ClientApp:
    """A ClientApp that imports flwr and numpy only; an action for each thing to be tried out."""
    app = ClientApp()
    for action in (_count, _count_then_raise, _mutate, _forge, _draw, _break, _say_error):
        app.train(action.__name__[1:])(action)
    app.train()(_move)
    app.evaluate()(_measure)
    return app


def _me(context: Context) -> int:
    return int(context.node_config["partition-id"])


def _answer(message: Message, context: Context, **values: Any) -> Message:
    metrics = MetricRecord({"num-examples": _me(context) + 1, **values})
    return Message(Content({"metrics": metrics}), reply_to=message)


def _move(message: Message, context: Context) -> Message:
    """Add this client's constant; an array named `nan@2` makes client 2 misbehave, and so on."""
    arrays: dict[str, Any] = {}
    for name, array in message.content.array_records["arrays"].items():
        fault, _, who = name.partition("@")
        step = np.array([0.1, -0.2]) if fault == "same" else OFFSETS[_me(context)]
        arrays[name] = array.numpy() + step
        if who and int(who) in (_me(context), 99):  # 99: everyone
            arrays[name] = _spoil(fault, arrays[name])
    reply = _answer(message, context, **{"train-loss": float(_me(context))})
    reply.content["arrays"] = ArrayRecord({k: Array(v) for k, v in arrays.items()})
    if "mass@1" in arrays and _me(context) == 1:
        reply.content["metrics"]["num-examples"] = float("nan")
    return reply


def _spoil(fault: str, array: Any) -> Any:
    if fault.startswith("raise"):
        raise ValueError("no disk left" + "\non this client" * (fault == "raise-long"))
    if fault == "nan":
        array[0] = np.nan
    return array[:-1] if fault == "shape" else array.astype(np.float16 if fault == "dtype" else "d")


def _measure(message: Message, context: Context) -> Message:
    arrays = message.content.array_records["arrays"]
    if "late@99" in arrays:
        raise OSError("the test set is gone")
    mean = np.mean([array.numpy().mean() for array in arrays.values()])
    return _answer(message, context, loss=float(mean) + _me(context))


def _count(message: Message, context: Context) -> Message:
    """Count this client's messages in its state; say how many there were before."""
    counter = context.state.metric_records.setdefault("counter", MetricRecord({"seen": 0}))
    before = counter["seen"]
    counter["seen"] = before + 1
    sent = message.content.config_records.get("config", ConfigRecord())
    return _answer(message, context, before=before, tag=sent.get("tag", 0))


def _count_then_raise(message: Message, context: Context) -> Message:
    _count(message, context)
    raise KeyError("after the state was changed")


def _mutate(message: Message, context: Context) -> Message:
    """Report what was received, then change all of it."""
    content = message.content
    array = content.array_records["arrays"]["w"]
    seen = float(array.numpy()[0])
    content.config_records["config"]["tag"] = 1000 + _me(context)
    content.array_records["arrays"]["w"] = Array(array.numpy() + 1)
    content.metric_records["new"] = MetricRecord({"x": 1})
    message.metadata.group_id = f"mine-{_me(context)}"
    return _answer(message, context, seen=seen)


def _forge(message: Message, context: Context) -> Message:
    """Answer in the name of the next client."""
    message.metadata.dst_node_id = node_id_of(_me(context) + 1)
    return _answer(message, context)


def _draw(message: Message, context: Context) -> Message:
    """Draw from all three global generators."""
    values = {"a": random.random(), "b": float(np.random.rand()), "c": float(torch.rand(()))}
    return _answer(message, context, **values)


def _break(message: Message, context: Context) -> Any:
    """Return what no ClientApp should; the request's config says which."""
    how = message.content.config_records["config"]["how"]
    if how == "none" or _me(context) != 1:
        return None if _me(context) == 1 else _answer(message, context)
    if how == "exit":
        sys.exit(3)
    garbage = Array("float32", (2,), "numpy.ndarray", b"this is no array")
    reply = _answer(message, context)
    reply.content["arrays"] = ArrayRecord({"w": garbage})
    return {"garbage": reply, "dict": {"w": 1.0}}[str(how)]


def _say_error(message: Message, context: Context) -> Message:
    return Message(Error(17, "battery is empty"), reply_to=message)
