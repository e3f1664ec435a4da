"""Rules, objectives, fields and conditions in conf/ and in STILLHOUSE_RULES."""

import os
import sys
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

from clients.messages.field import Field
from clients.training.objective import Objective
from tests.places import CONF

FOLDERS = [CONF]
if "STILLHOUSE_RULES" in os.environ:
    FOLDERS.append(Path(os.environ["STILLHOUSE_RULES"]))
    sys.path.insert(0, str(FOLDERS[-1]))


def found(kind: str, section: str = "strategy") -> dict[str, Any]:
    """Instantiate every YAML of one kind."""
    files = [
        path for folder in FOLDERS for path in sorted((folder / section / kind).glob("*.yaml"))
    ]
    return {path.stem: instantiate(OmegaConf.load(path)) for path in files}


def asked_for() -> dict[str, Field]:
    """Instantiate every field, by the name under which it is asked for."""
    files = [
        path for folder in FOLDERS for path in sorted((folder / "strategy" / "ask").glob("*.yaml"))
    ]
    return {
        str(name): instantiate(node)
        for path in files
        for name, node in OmegaConf.load(path).items()
    }


SCORERS, COMBINERS, RULES = found("scorer"), found("combiner"), found("rule")
_LOSSES = found("loss")
LOSSES = {name: loss for name, loss in _LOSSES.items() if not isinstance(loss, Objective)}
OBJECTIVES: dict[str, Objective] = {
    name: made
    for name, made in found("objective", "clients").items()
    if isinstance(made, Objective)  # the file of none says null
}
STUDENTS: dict[str, Objective] = {n: o for n, o in _LOSSES.items() if isinstance(o, Objective)}
"""Objectives in the place of a loss: their loss takes a temperature, and targets that are soft."""
FIELDS = asked_for()
CONDITIONS = {n: each for n, each in found("condition", "clients").items() if callable(each)}
