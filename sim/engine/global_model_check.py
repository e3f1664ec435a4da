"""Checks of what any strategy returned, before it is kept as the global model or its measures."""

from typing import Any

import numpy as np
from flwr.app import ArrayRecord, MetricRecord

from clients.messages.arrays import PLAIN, read_arrays


class BadModel(RuntimeError):
    """A strategy returned a global model that nobody can go on from, or what is none."""


def pair_of(strategy: object, server_round: int, returned: Any) -> tuple[Any, MetricRecord | None]:
    """Take apart what `aggregate_train` returned.

    Args:
        strategy: Whose it is, for the message.
        server_round: 1..R.
        returned: By it.

    Returns:
        What may be a global model, and metrics.

    Raises:
        BadModel: It is no pair, or its second part no metrics.
    """
    if not isinstance(returned, tuple) or len(returned) != 2:
        what = "nothing" if returned is None else type(returned).__name__
        raise BadModel(
            f"strategy {type(strategy).__name__}, round {server_round}: aggregate_train returned "
            f"{what}, expected (ArrayRecord or None, MetricRecord or None)"
        )
    require_measures(strategy, server_round, "aggregate_train", returned[1])
    return returned


def require_measures(strategy: object, server_round: int, method: str, returned: Any) -> None:
    """Refuse what a strategy returned for metrics and is none; BadModel names the method."""
    if returned is not None and not isinstance(returned, MetricRecord):
        raise BadModel(
            f"strategy {type(strategy).__name__}, round {server_round}: the metrics of {method} "
            f"are of {type(returned).__name__}, expected MetricRecord or None"
        )


def require_usable(strategy: object, server_round: int, sent: ArrayRecord, returned: Any) -> None:
    """Refuse a global model that is not finite, or not of the form of the one before.

    What clients send has been screened, so the fault is the strategy's own.

    Args:
        strategy: Whose it is, for the message.
        server_round: 1..R.
        sent: The global model before the round.
        returned: What the strategy made of the replies.

    Raises:
        BadModel: It cannot be kept; names strategy, round and the first odd array.
    """
    if reason := _fault(sent, returned):
        name = type(strategy).__name__
        raise BadModel(f"strategy {name}, round {server_round}: its global model {reason}")


def _fault(sent: ArrayRecord, returned: Any) -> str | None:
    if not isinstance(returned, ArrayRecord):
        return f"is of {type(returned).__name__}, expected ArrayRecord"
    for name in sorted(set(sent) ^ set(returned)):
        return f"{'lacks' if name in sent else 'has a new'} array '{name}'"
    for name, raw in returned.items():
        if raw.dtype not in PLAIN:
            return f"has array '{name}' of dtype {raw.dtype}, expected {sent[name].dtype}"
    for name, array in read_arrays(returned).items():
        wanted = tuple(sent[name].shape)
        if array.shape != wanted and sent[name].dtype != "uint8":  # trees grow
            return f"has array '{name}' of shape {array.shape}, expected {wanted}"
        if array.dtype.kind == "f" and (bad := int((~np.isfinite(array)).sum())):
            return f"has {bad} of {array.size} values of array '{name}' that are not finite"
    return None
