"""When a probe is asked."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy.typing as npt

from clients.duck_typing import offers
from clients.messages.round_views import RoundView
from sim.analysis.probes.values import KeepsState, Probe, require_probe
from sim.errors import ProbeError


def is_due(server_round: int, rounds: int) -> bool:
    """Tell whether a round is round 1 or one of every so many after it; 0 = never."""
    return rounds > 0 and (server_round - 1) % rounds == 0


class Every:
    """Asks another probe in round 1 and every so many rounds after it."""

    def __init__(self, rounds: Annotated[int, ">= 0, 0 for never"], probe: Probe) -> None:
        """Wait for round 1.

        Args:
            rounds: How many, >= 0; 0 = never.
            probe: The other one; what it keeps is kept.

        Raises:
            ProbeError: `rounds` is below 0, or the other is no function of a view.
        """
        if rounds < 0:
            raise ProbeError(
                f"sim.analysis.probes.Every: rounds={rounds}: expected an integer >= 0, 0 for never"
            )
        if not callable(probe):
            raise ProbeError(
                f"sim.analysis.probes.Every: probe is {type(probe).__name__}, expected a function "
                "of a round's view; an Ask has `every` of its own"
            )
        require_probe(probe, "sim.analysis.probes.Every: probe")
        self._rounds, self._probe = rounds, probe

    def __call__(self, view: RoundView) -> Mapping[str, Any]:
        """Return what the other probe finds, or nothing."""
        return self._probe(view) if is_due(view.server_round, self._rounds) else {}

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return what the other probe keeps."""
        return (
            self._probe.state()
            if isinstance(self._probe, KeepsState) and offers(self._probe, KeepsState)
            else {}
        )

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Give the other probe back what it kept."""
        if isinstance(self._probe, KeepsState) and offers(self._probe, KeepsState):
            self._probe.restore(state)
