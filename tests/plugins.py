"""Rules, objectives, fields and conditions in conf/ and in STILLHOUSE_RULES."""

import inspect
import os
import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from clients.messages.answers import Answers
from clients.messages.field import Field
from clients.training.objective import Objective
from conf.building import instantiate
from strategies.aggregation.rule_arguments import OFFERED, made_up_arguments, told
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


def knowing(scorer: Any) -> Any:
    """Give a scorer what it names beside answers, made up of these."""
    return lambda teachers: scorer(teachers, **told(scorer, made_up_arguments(teachers)))


def knowing_combiner(combiner: Any) -> Any:
    """Give a combiner what it names beside logits, weights and temperature, made up of the first.

    One that names nothing stays what it is.
    """
    if not {"teachers", *OFFERED} & set(inspect.signature(combiner).parameters):
        return combiner

    def combine(logits: Tensor, weights: Tensor, temperature: float) -> Any:
        count, rows, _ = logits.shape
        everything = torch.ones(count, rows, dtype=torch.bool)
        said = Answers(tuple(range(count)), logits, everything, None, torch.ones(count))
        known = {"teachers": said, **made_up_arguments(said)}
        return combiner(logits, weights, temperature, **told(combiner, known))

    return combine


SCORERS = {name: knowing(scorer) for name, scorer in found("scorer").items()}
COMBINERS = {name: knowing_combiner(combiner) for name, combiner in found("combiner").items()}
RULES = found("rule")
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
