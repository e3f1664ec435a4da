"""Every scorer, combiner, loss and rule found in conf/ and in STILLHOUSE_RULES."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.places import CONF

FOLDERS = [CONF]
if "STILLHOUSE_RULES" in os.environ:
    FOLDERS.append(Path(os.environ["STILLHOUSE_RULES"]))
    sys.path.insert(0, str(FOLDERS[-1]))


def found(kind: str) -> dict[str, Callable[..., Any]]:
    """Instantiate every YAML of one kind."""
    files = [
        path for folder in FOLDERS for path in sorted((folder / "strategy" / kind).glob("*.yaml"))
    ]
    return {path.stem: instantiate(OmegaConf.load(path)) for path in files}


SCORERS, COMBINERS, LOSSES = found("scorer"), found("combiner"), found("loss")
RULES = found("rule")
