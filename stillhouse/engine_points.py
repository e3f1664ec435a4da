"""The engine's points, for `conformance`: what a user's function may be held to beside ours."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clients.points import Point


def engine_points() -> "tuple[Point, ...]":
    """Return the points of the engine: probes of rounds, graphs, their weights, strategies."""
    from sim.analysis.probes.conformance import ROUND_PROBE
    from sim.checkpoint.conformance_rounds import begun, made_for, trial_run
    from sim.topology.conformance import MIXING, TOPOLOGY
    from sim.workers.process_setup import assume_task_identity
    from strategies.conformance.of_strategies import Engine, strategy_point

    assume_task_identity(run_id=1)  # so that messages can be made up here
    return ROUND_PROBE, TOPOLOGY, MIXING, strategy_point(Engine(begun, trial_run, made_for))
