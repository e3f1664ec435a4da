"""How clients learn from what neighbours sent: soft labels, or a network."""

from dataclasses import dataclass
from typing import Any, Literal

from clients.mutual.messenger import Messenger
from clients.training.loop import Loss


@dataclass(frozen=True, eq=False)
class Digest:
    """How clients learn soft labels.

    Attributes:
        loss: (logits [B, C], targets [B, C]) -> [B].
        numbers: Keyword arguments of `clients.training.loop.train`.
    """

    loss: Loss
    numbers: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Transfer:
    """How a client learns with a network that it was sent.

    Attributes:
        how: Of both; the client's own is the first.
        keep: Which one it goes on with: what it was sent, its own, or the mean of both.
    """

    how: Messenger
    keep: Literal["received", "own", "mean"]
