"""Probes: functions from a round's view to named values. They read, and change nothing.

`def probe(view: RoundView) -> dict[str, float | numpy array]`, named in YAML under `probes:`. A
number is a scalar of the round; an array [K] is one number for each client, NaN where there is
none; any other array is a figure, as are a `Table` and a `Curve`. An object with `state` and
`restore` (`KeepsState`) goes on after a resume from what it kept.
"""

from sim.probes.calibration import calibration
from sim.probes.forgetting import Forgetting
from sim.probes.output import output_drift, output_matrices, trust
from sim.probes.parameters import parameter_drift
from sim.probes.recall import recall_spread
from sim.probes.representation import representation_drift
from sim.probes.schedule import every
from sim.probes.teachers import teacher_audit
from sim.probes.values import Curve, KeepsState, Probe, Table

__all__ = [
    "Curve",
    "Forgetting",
    "KeepsState",
    "Probe",
    "Table",
    "calibration",
    "every",
    "output_drift",
    "output_matrices",
    "parameter_drift",
    "recall_spread",
    "representation_drift",
    "teacher_audit",
    "trust",
]
