"""When a probe is asked."""

from collections.abc import Mapping
from typing import Any

from clients.teachers import RoundView
from sim.probes.values import Probe


def is_due(server_round: int, rounds: int) -> bool:
    """Tell whether a round is round 1 or one of every so many after it; 0 = never."""
    return rounds > 0 and (server_round - 1) % rounds == 0


def every(view: RoundView, *, rounds: int, probe: Probe) -> Mapping[str, Any]:
    """Ask another probe in round 1 and every so many rounds after it.

    Args:
        view: Of one round.
        rounds: How many, >= 0; 0 = never.
        probe: The other one; it must not need to see every round.

    Returns:
        What it returns, or nothing.
    """
    return probe(view) if is_due(view.server_round, rounds) else {}
