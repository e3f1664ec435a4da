"""What the probes found in a round, by kind."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from clients.handlers.function_probes import NAME
from clients.messages.round_views import RoundView
from sim.analysis.probes.values import ByClient, Curve, Probe, Table, Value
from sim.errors import ProbeError


@dataclass(frozen=True, eq=False)
class Findings:
    """Values by name, of one round.

    Attributes:
        numbers: Of the whole round.
        clients: Of clients, by name and client id; without those that there is no value of.
        figures: To be drawn.
        probes: Whose each value is, by name.
    """

    numbers: dict[str, float] = field(default_factory=dict)
    clients: dict[str, dict[int, float]] = field(default_factory=dict)
    figures: dict[str, Table | Curve] = field(default_factory=dict)
    probes: dict[str, str] = field(default_factory=dict)

    def ask(
        self, probes: Mapping[str, Probe], view: RoundView, reserved: Collection[str] = ()
    ) -> None:
        """Ask probes, one after the other, and take in what they find.

        Args:
            probes: By name.
            view: What they look at.
            reserved: Names that values of clients must not have.

        Raises:
            ProbeError: A probe has an argument out of range, changed the view, or returned what is
                no dict of values; a value is of no kind that there is, or not of as many clients,
                or has a name that is reserved or another probe's.
        """
        for probe, function in probes.items():
            before = _versions(view)
            try:
                found = function(view)
            except ProbeError as error:  # of its own arguments
                raise ProbeError(f"probes.{probe}: {error}") from error
            except Exception as error:  # whatever it is, of whichever probe?
                error.add_note(f"probes.{probe}")
                raise
            if _versions(view) != before:
                raise ProbeError(f"probes.{probe}: changes what it is shown, expected to read only")
            if not isinstance(found, Mapping):
                raise ProbeError(
                    f"probes.{probe}: returns {type(found).__name__}, expected a dict of values by "
                    "name"
                )
            self.take(probe, found, view.teachers.client_ids, reserved)

    def take(
        self,
        probe: str,
        values: Mapping[str, Value],
        client_ids: tuple[int, ...] = (),
        reserved: Collection[str] = (),
    ) -> None:
        """Take in what somebody else found; `client_ids` are those that a `ByClient` is of."""
        for name, value in values.items():
            self._take(probe, name, value, client_ids, reserved)

    def _take(
        self,
        probe: str,
        name: str,
        value: Any,
        client_ids: tuple[int, ...],
        reserved: Collection[str],
    ) -> None:
        where = f"probes.{probe}: value {name!r}"
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ProbeError(f"{where}: expected a name of letters, digits, '_', '-' and '.'")
        if (owner := self.probes.setdefault(name, probe)) != probe:
            raise ProbeError(f"{where}: is that of probes.{owner} too; leave one out or rename it")
        if isinstance(value, Table | Curve):
            self.figures[name] = value
        elif isinstance(value, ByClient):
            if name in reserved:
                raise ProbeError(f"{where}: is a column of clients.parquet")
            self.clients[name] = _by_id(where, value, client_ids)
        else:
            self.numbers[name] = _number(where, value)


def _versions(view: RoundView) -> list[int]:
    """Count how often each tensor was written to; one made for inference refuses to be."""
    of_teachers = view.teachers.logits, view.teachers.mask, view.teachers.own_probs
    answers = view.weights, view.targets, view.student_before, view.student_after, view.labels
    tensors = [each for each in (*of_teachers, *answers) if isinstance(each, Tensor)]
    return [each._version for each in tensors if not each.is_inference()]


def _by_id(where: str, value: ByClient, client_ids: tuple[int, ...]) -> dict[int, float]:
    values = np.asarray(value.values)
    if not _is_real(values) or values.shape != (len(client_ids),):
        raise ProbeError(
            f"{where}: ByClient of {values.dtype} {values.shape}, expected one number for each of "
            f"{len(client_ids)} clients"
        )
    pairs = zip(client_ids, values.tolist(), strict=True)
    return {client_id: float(value) for client_id, value in pairs if np.isfinite(value)}


def _number(where: str, value: Any) -> float:
    number = np.asarray(value)
    if number.ndim or not _is_real(number):
        raise ProbeError(
            f"{where}: {type(value).__name__} of shape {number.shape}, expected a number, or a "
            "ByClient, Table or Curve of sim.analysis.probes"
        )
    return float(number)


def _is_real(values: np.ndarray[Any, np.dtype[Any]]) -> bool:
    return values.dtype.kind in "fiub"
