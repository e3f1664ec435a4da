"""What the process that `tests.commands` forks from has imported, and has done once."""

import hydra.main
import pyarrow.pandas_compat
import pytest
import ray
import scipy.stats
import sklearn.datasets
import sklearn.linear_model
import tensorboard.plugins.hparams.api_pb2
import torch._dynamo

import clients.app
import run
import sim.checkpoint.resumable_run
import sim.report.command
import sim.tracking.figures
import sim.workers.ray_pool
import stillhouse.command
import strategies.server.mutual
from conf.schema import check_targets
from tests.composing import composed, hasten_hydra

for name in ("distillation", "dml", "gossip", "averaging"):
    check_targets(composed(f"strategy={name}"))  # imports what they name; Hydra's grammar is warm

hasten_hydra(pytest.MonkeyPatch())
