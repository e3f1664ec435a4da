"""What is noted of each request: who, what, how many bytes, what came of it."""

from collections import Counter
from dataclasses import dataclass, replace

from flwr.app import ArrayRecord, Error, Message, MetricRecord, RecordDict

from clients.messages import client_id_of
from sim.tasks import Answer

CLIENT_RAISED, REPLY_REJECTED = 2, 4
"""Codes of Flower's `Error`: CLIENT_APP_RAISED_EXCEPTION and REPLY_MESSAGE_UNAVAILABLE."""


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
    )


def names_of(content: RecordDict) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Name a content's array and metric records and their keys, in order."""
    kinds = (ArrayRecord, MetricRecord)
    keys = {name: sorted(record) for name, record in content.items() if isinstance(record, kinds)}
    return tuple((name, tuple(keys[name])) for name in sorted(keys))


def reject_unlike(
    replies: list[Message], exchanges: list[Exchange]
) -> tuple[list[Message], list[Exchange]]:
    """Turn the replies whose records are not named as most replies' are into errors.

    Flower's strategies refuse a whole round in which replies disagree in that.

    Args:
        replies: Of one phase of a round.
        exchanges: Of the round so far.

    Returns:
        The same replies, the odd ones replaced by errors; the exchanges, those noted as failures.
    """
    names = [names_of(reply.content) if reply.has_content() else None for reply in replies]
    usual = Counter(name for name in names if name is not None).most_common(1)
    reason = "its records or their keys are not named as the other clients' are"
    kept = list[Message]()
    for reply, name in zip(replies, names, strict=True):
        if name is None or name == usual[0][0]:
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
