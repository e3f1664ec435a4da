"""What the process that `tests.commands` forks from has imported, and has done once."""

import hydra.main
import pyarrow.pandas_compat
import pytest
import ray
import scipy.stats
import sklearn.datasets
import sklearn.linear_model
import tensorboard.plugins.hparams.api_pb2
from hydra import compose, initialize_config_module

import clients.app
import run
import sim.checkpoint.resumable_run
import sim.report.command
import sim.tracking.figures
import sim.workers.ray_pool
import stillhouse.command
import strategies.server.mutual
from conf.command_line_errors import known_keys
from conf.schema import check_targets
from tests.composing import composed, hasten_hydra

OFTEN = [f"strategy={name}" for name in ("dlad", "distillation", "dml", "gossip", "averaging")]
for choice in OFTEN:
    check_targets(composed(choice))  # imports what they name; Hydra's grammar is warm

hasten_hydra(pytest.MonkeyPatch())
with initialize_config_module("conf", version_base="1.3"):  # as run.py finds it
    for choice in OFTEN:
        compose("config", [choice])
known_keys()  # for who is told the nearest of them
