"""What the probes found in a round, by kind."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim.probes.values import ByClient, Curve, Table


@dataclass(frozen=True, eq=False)
class Findings:
    """Values by name, of one round.

    Attributes:
        numbers: Of the whole round.
        clients: Of clients, by name and client id; without those that there is no value of.
        figures: To be drawn.
    """

    numbers: dict[str, float] = field(default_factory=dict)
    clients: dict[str, dict[int, float]] = field(default_factory=dict)
    figures: dict[str, Table | Curve] = field(default_factory=dict)

    def take(
        self, found: Mapping[str, Any], client_ids: Sequence[int], reserved: Collection[str]
    ) -> None:
        """Take in what a probe returned.

        Args:
            found: Values by name.
            client_ids: Of the view.
            reserved: Names that values of clients must not have.

        Raises:
            ValueError: A value is of no kind that there is, or not of as many clients, or has a
                reserved name; names it.
        """
        for name, value in found.items():
            if isinstance(value, Table | Curve):
                self.figures[name] = value
            elif isinstance(value, ByClient):
                if name in reserved:
                    raise ValueError(f"probe value '{name}': is a column of clients.parquet")
                self.clients[name] = _by_id(name, value, client_ids)
            else:
                self.numbers[name] = _number(name, value)


def _by_id(name: str, value: ByClient, client_ids: Sequence[int]) -> dict[int, float]:
    values = np.asarray(value.values)
    if not _is_real(values) or values.shape != (len(client_ids),):
        raise ValueError(
            f"probe value '{name}': ByClient of {values.dtype} {values.shape}, expected one number "
            f"for each of {len(client_ids)} clients"
        )
    pairs = zip(client_ids, values.tolist(), strict=True)
    return {client_id: float(value) for client_id, value in pairs if np.isfinite(value)}


def _number(name: str, value: Any) -> float:
    number = np.asarray(value)
    if number.ndim or not _is_real(number):
        raise ValueError(
            f"probe value '{name}': {type(value).__name__} of shape {number.shape}, expected a "
            "number, or a ByClient, Table or Curve of sim.probes"
        )
    return float(number)


def _is_real(values: np.ndarray[Any, np.dtype[Any]]) -> bool:
    return values.dtype.kind in "fiub"
