"""Who is there and what arrives, as it is written."""

from typing import Any

import numpy as np


class Scripted:
    """Everybody is there but who sleeps; messages of a round fare as it is written."""

    def __init__(self, n: int, delays: Any = None, asleep: Any = None) -> None:
        self._n, self._delays, self._asleep = n, delays or {}, asleep or {}

    def present(self, server_round: int) -> Any:
        return np.ones(self._n, dtype=np.bool_)

    def awake(self, server_round: int) -> Any:
        return np.array([k not in self._asleep.get(server_round, ()) for k in range(self._n)])

    def delays(self, server_round: int, senders: Any, receivers: Any) -> Any:
        of = self._delays.get(server_round, {})
        return np.array([of.get(pair, 0) for pair in zip(senders, receivers, strict=True)])
