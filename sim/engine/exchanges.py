"""What is noted of each request: who, what, how many bytes, what came of it."""

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

from flwr.app import ArrayRecord, Error, Message, MetricRecord, RecordDict

from clients.messages.requests import client_id_of
from sim.workers.tasks import Answer

CLIENT_RAISED, REPLY_REJECTED = 2, 4
"""Codes of Flower's `Error`: CLIENT_APP_RAISED_EXCEPTION and REPLY_MESSAGE_UNAVAILABLE."""

Look = Callable[[RecordDict], Hashable]
"""Content of a reply -> what must be equal in all replies that are aggregated together."""


@dataclass(frozen=True)
class Exchange:
    """One request and what came of it: a row of the per-client table, or a failure.

    Attributes:
        server_round: 1..R.
        client_id: 0-based.
        phase: The message type, such as "train" or "evaluate.predictions".
        architecture: Name of the client's architecture.
        request_bytes: Payload down.
        reply_bytes: Payload up; 0 if there was no reply.
        metrics: Scalars of the reply.
        failure: "" or why there is no usable reply.
        traceback: "" or the text of what the client raised.
        simulated_time_s: How long it took, 0 for a measurement; None = there is no virtual clock.
        measurement: Whether it was for whoever watches, whose failures end no run.
    """

    server_round: int
    client_id: int
    phase: str
    architecture: str
    request_bytes: int
    reply_bytes: int
    metrics: dict[str, float]
    failure: str
    traceback: str
    simulated_time_s: float | None = None
    measurement: bool = False

    def __str__(self) -> str:
        """Name client, architecture, round, phase and failure, for people."""
        return (
            f"client {self.client_id} ({self.architecture}), round {self.server_round}, phase "
            f"{self.phase}: {self.failure}"
        )


def exchange_of(
    request: Message,
    answer: Answer,
    server_round: int,
    architecture: str,
    request_bytes: int,
    simulated_time_s: float | None,
    measurement: bool,
) -> Exchange:
    """Note a request and what came of it."""
    return Exchange(
        server_round=server_round,
        client_id=answer.client_id,
        phase=request.metadata.message_type,
        architecture=architecture,
        request_bytes=request_bytes,
        reply_bytes=answer.reply_bytes,
        metrics=answer.metrics,
        failure=answer.failure,
        traceback=answer.traceback,
        simulated_time_s=simulated_time_s,
        measurement=measurement,
    )


def names_of(content: RecordDict) -> Hashable:
    """Name a content's array and metric records, their kinds and keys, in order."""
    return tuple(
        (name, type(record).__name__, tuple(sorted(record)))
        for name, record in sorted(content.items())
        if isinstance(record, ArrayRecord | MetricRecord)
    )


def forms_of(content: RecordDict) -> Hashable:
    """Say what a content's arrays and metrics look like: kinds, shapes, and lengths of lists."""
    forms: list[Hashable] = []
    for name, record in sorted(content.items()):
        if isinstance(record, ArrayRecord):
            forms += [
                # Not of bytes: the boosted trees of Flower's XGBoost strategies differ in length.
                (name, key, array.dtype, None if array.dtype == "uint8" else tuple(array.shape))
                for key, array in sorted(record.items())
            ]
        elif isinstance(record, MetricRecord):
            forms += [
                (name, key, "metric", len(value) if isinstance(value, list) else None)
                for key, value in sorted(record.items())
            ]
    return tuple(forms)


def reject_unlike(
    replies: list[Message], exchanges: list[Exchange], look: Look
) -> tuple[list[Message], list[Exchange]] | None:
    """Turn the replies that do not look as most replies do into errors.

    Flower's strategies refuse a whole round in which replies disagree, or fail in the middle.

    Args:
        replies: Of one phase of a round.
        exchanges: Of the round so far.
        look: `names_of` or `forms_of`. Of two looks that are as frequent that of the client with
            the least id counts.

    Returns:
        The same replies, the odd ones replaced by errors, and the exchanges, those noted as
        failures; None if all look alike.
    """
    looks = [look(reply.content) if reply.has_content() else None for reply in replies]
    usual = Counter(each for each in looks if each is not None).most_common(2)
    if len(usual) < 2:
        return None
    what = "records or their keys are not named"
    if look is not names_of:
        what = "arrays or metrics are not of the kinds and shapes"
    reason = f"its {what} as the other clients' are"
    kept = list[Message]()
    for reply, each in zip(replies, looks, strict=True):
        if each is None or each == usual[0][0]:
            kept.append(reply)
            continue
        who = client_id_of(reply.metadata.src_node_id), reply.metadata.message_type
        exchanges = [
            replace(e, failure=reason, metrics={}) if (e.client_id, e.phase) == who else e
            for e in exchanges
        ]
        refused = Message(Error(REPLY_REJECTED, reason), reply_to=reply)
        # A reply to the reply has its ends swapped: this error comes from the client.
        refused.metadata.__dict__["_src_node_id"] = reply.metadata.src_node_id
        kept.append(refused)
    return kept, exchanges
