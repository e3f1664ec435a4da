"""What is noted of each request: who, what, how many bytes, what came of it."""

from dataclasses import dataclass

from flwr.app import ArrayRecord, MetricRecord, RecordDict


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

    def __str__(self) -> str:
        """Name client, architecture, round, phase and failure, for people."""
        return (
            f"client {self.client_id} ({self.architecture}), round {self.server_round}, phase "
            f"{self.phase}: {self.failure}"
        )


def names_of(content: RecordDict) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Name a content's array and metric records and their keys, in order."""
    kinds = (ArrayRecord, MetricRecord)
    keys = {name: sorted(record) for name, record in content.items() if isinstance(record, kinds)}
    return tuple((name, tuple(keys[name])) for name in sorted(keys))


def scalars_of(content: RecordDict) -> dict[str, float]:
    """Collect all single numbers of a reply's metric records."""
    # Not content.metric_records: it refers to the content and back, and megabytes of answers would
    # wait for the garbage collector.
    return {
        key: float(value)
        for record in content.values()
        if isinstance(record, MetricRecord)
        for key, value in record.items()
        if isinstance(value, int | float)
    }
