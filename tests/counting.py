"""A message of a user's own: how many examples of each class a client has."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from clients.handlers.base import Handler, each
from clients.messages.arrays import write_arrays

KIND = "train.counts"
SEEN = "seen"


def count(clients: Any, request: Message, context: Any, device: str, *, most: int) -> RecordDict:
    """Say how many examples of each class a client has, and how often it was asked before."""
    client_id = context.node_config["partition-id"]
    if client_id == request.content["config"].get("failing"):
        raise OSError("no labels left")
    labels = clients.splits.private.labels[clients.partitions[client_id]]
    before = context.state.setdefault(SEEN, MetricRecord({"times": 0}))["times"]
    context.state[SEEN] = MetricRecord({"times": before + 1})
    counts = np.bincount(labels, minlength=4).clip(max=most).astype(np.float32)
    metrics = MetricRecord({"num-examples": len(labels), "before": before})
    return RecordDict({"counts": write_arrays({"by-class": counts}), "metrics": metrics})


def fault(request: Message, reply: Message) -> str | None:
    found = reply.content["counts"]["by-class"].numpy()
    return "nobody has a class 3" if found[3] > request.content["config"].get("most", 99) else None


def work(clients: Any, client_id: int, content: RecordDict) -> float:
    return 10.0 * len(clients.partitions[client_id])


COUNTS = Handler(
    KIND,
    each(partial(count, most=1000)),
    keys=("server-round", "most", "failing"),
    replies={"counts": ArrayRecord, "metrics": MetricRecord},
    fault=fault,
    multiplications=work,
)


class Counting(Strategy):
    """Asks everybody for counts; what came is a sum."""

    has_student = False

    def __init__(self, handlers: Iterable[Any] = (COUNTS,), kind: str = KIND, **told: Any) -> None:
        self.handlers, self.kind, self.told = tuple(handlers), kind, told
        self.sums: list[Any] = []

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
        about = ConfigRecord({"server-round": server_round, **self.told})
        content = RecordDict({"config": about})
        return [Message(content, node_id, self.kind) for node_id in grid.get_node_ids()]

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        contents = [reply.content for reply in replies if reply.has_content()]
        found = [content["counts"]["by-class"].numpy() for content in contents]
        self.sums.append(np.sum(found, axis=0).tolist())
        return None, None

    def configure_evaluate(self, *words: Any) -> Any:
        return []

    def aggregate_evaluate(self, *words: Any) -> None:
        return None

    def summary(self) -> None: ...
