"""How much a content weighs: in bytes on its way, in examples where it is averaged."""

from typing import Any, cast

from flwr.app import ConfigRecord, MetricRecord, RecordDict

NUM_EXAMPLES = "num-examples"
"""Flower's name of the metric by which replies are weighed."""


def examples_in(metrics: MetricRecord) -> float:
    """Return how many examples a client says that it has, a whole number >= 1: its weight."""
    return float(cast(float, metrics[NUM_EXAMPLES]))


def size_bytes(content: RecordDict) -> int:
    """Measure a content's payload in bytes, as Flower serialises it (array headers included)."""
    return sum(
        # Flower's own count of a config fails at empty texts and lists.
        sum(len(key) + _value_bytes(value) for key, value in record.items())
        if isinstance(record, ConfigRecord)
        else record.count_bytes()
        for record in content.values()
    )


def _value_bytes(value: Any) -> int:
    if isinstance(value, list):
        return sum(map(_value_bytes, value))
    if isinstance(value, str | bytes):
        return len(value)
    return 1 if isinstance(value, bool) else 8
