"""Is this reply fit to be weighed? What a strategy weighs by, under whatever name."""

from collections.abc import Sequence
from typing import Any

from flwr.app import Message, MetricRecord

from clients.handlers.reply_faults import MAX_EXAMPLES
from clients.messages.accumulator import Fault

MIN_WEIGHT = 1e-9
"""Smallest weight: beside `MAX_EXAMPLES` its share is still finite, and no zero, in float32."""


def first_fault(request: Message, reply: Message, *, faults: Sequence[Fault]) -> str | None:
    """Look for several faults.

    Args:
        request: What the client received.
        reply: What it answered.
        faults: Each looks for one.

    Returns:
        The first reason to reject the reply, or None.
    """
    return next((reason for fault in faults if (reason := fault(request, reply))), None)


def fault_in_loss(request: Message, reply: Message, *, key: str) -> str | None:
    """Look for a training loss whose powers can be weights, as Flower's q-FedAvg takes them.

    Args:
        request: Not looked at.
        reply: With one metric record.
        key: Name of the metric.

    Returns:
        The reason to reject the reply, or None.
    """
    records = [each for each in reply.content.values() if isinstance(each, MetricRecord)]
    loss: Any = records[0].get(key) if records else None
    if isinstance(loss, int | float) and loss >= 0:
        return None
    if loss is None and records:
        there = ", ".join(sorted(map(str, records[0])))
        return f"no metric '{key}', by whose powers replies are weighed; it has {there}"
    return f"metric '{key}' is {loss}, expected a number >= 0: replies are weighed by its powers"


def fault_in_weight(request: Message, reply: Message, *, key: str) -> str | None:
    """Look for a weight by which a mean can be taken; `num-examples` is judged in every reply.

    Args:
        request: Not looked at.
        reply: One that lacks the metric is the strategy's to refuse.
        key: Name of the metric that replies are weighed by.

    Returns:
        The reason to reject the reply, or None.
    """
    for record in reply.content.values():
        weight: Any = record.get(key) if isinstance(record, MetricRecord) else None
        if weight is not None and not (
            isinstance(weight, int | float) and MIN_WEIGHT <= weight <= MAX_EXAMPLES
        ):
            return (
                f"metric '{key}' is {weight}, expected a number from {MIN_WEIGHT:.0e} to "
                f"{MAX_EXAMPLES:.0e}: replies are weighed by it"
            )
    return None
