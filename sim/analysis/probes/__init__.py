"""Probes: functions from a round's view to named values. They read, and change nothing.

`def probe(view: RoundView) -> dict[str, float | ByClient | Table | Curve]`, named in YAML under
`probes:`. A number is a scalar of the round, `ByClient` a column of the table of clients, a `Table`
or a `Curve` a figure. An object with `state` and `restore` (`KeepsState`) goes on after a resume
from what it kept. An `Ask` goes to the networks instead, and brings numbers back.
"""

from sim.analysis.probes.asking import Ask
from sim.analysis.probes.calibration import calibration
from sim.analysis.probes.forgetting import Forgetting
from sim.analysis.probes.output import output_drift, output_matrices, trust
from sim.analysis.probes.parameters import parameter_drift
from sim.analysis.probes.recall import recall_spread
from sim.analysis.probes.representation import representation_drift
from sim.analysis.probes.schedule import Every
from sim.analysis.probes.teacher_weights import teacher_audit
from sim.analysis.probes.values import ByClient, Curve, KeepsState, Probe, Table
from sim.errors import ProbeError

__all__ = [
    "Ask",
    "ByClient",
    "Curve",
    "Every",
    "Forgetting",
    "KeepsState",
    "Probe",
    "ProbeError",
    "Table",
    "calibration",
    "output_drift",
    "output_matrices",
    "parameter_drift",
    "recall_spread",
    "representation_drift",
    "teacher_audit",
    "trust",
]
