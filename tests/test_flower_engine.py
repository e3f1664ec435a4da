"""Our ClientApp and our strategy on Flower's own simulation engine, beside ours."""

import json
import subprocess
import sys

import pytest

from tests.places import ROOT

# Flower starts Ray itself and counts its nodes from random ids, so it gets a process of its own.
SCRIPT = """
import json, logging, os, sys
import numpy as np
from functools import partial
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
from clients.app import SimulatedApp
from clients.population.clients import SimulatedClients
from clients.models.factory import build, parameters_of
from clients.messages.arrays import read_arrays, write_arrays
from clients.data import blobs, split
from clients.models import mlp
from clients.partition import iid
from clients.seeding import Purpose, generator
from clients.training.loop import train
from flwr.app import ConfigRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from strategies.aggregation.combiners import mean_of_probs
from strategies.server.distillation import DistillationStrategy
from strategies.aggregation.scorers import uniform
from tests.parts import whole
from clients.training.losses import kl
from clients.handlers.predictions import TRAIN_PREDICTIONS
from clients.handlers.reply_faults import fault_of as fault_in
from sim.engine.grid import PoolGrid
from sim.workers.pools import InlinePool
from sim.workers.process_setup import pin_threads
import torch

pin_threads(1)
train_set, test_set = blobs()
splits = split(train_set, test_set, proxy_share=0.3, proxy_source=None, limit=None,
               proxy_limit=None, rng=generator(0, Purpose.SPLIT))
model = partial(mlp, hidden=(8,))
trainer = partial(train, epochs=2, batch_size=16, optimizer=partial(torch.optim.SGD, lr=0.1))
partitions = iid(splits.private.labels, 2, generator(0, Purpose.PARTITION))
clients = SimulatedClients(splits, partitions, ["m", "m"], {"m": model}, model, trainer, seed=0)
student = lambda: build(model, splits.private.task, generator(0, Purpose.STUDENT))
initial = write_arrays(parameters_of(student()))
makers = {
    "fedavg": lambda: FedAvg(),
    "distillation": lambda: whole(DistillationStrategy, dict(
        student=student(), proxy=splits.proxy, test=splits.test, distil=trainer, seed=0,
        scorer=uniform, combiner=mean_of_probs, loss=kl)),
}
theirs = {}
server = ServerApp()

@server.main()
def main(grid, context):
    for name, make in makers.items():
        theirs[name] = make().start(grid, initial, num_rounds=2).arrays

run_simulation(server, SimulatedApp(clients, DistillationStrategy.handlers), num_supernodes=2,
               backend_config={"client_resources": {"num_cpus": 1}, "init_args": {"num_cpus": 1}})
distances = {}
pool = InlinePool(0)
pool.load(SimulatedApp(clients, DistillationStrategy.handlers))
for name, make in makers.items():
    grid = PoolGrid(pool, ["m", "m"])
    ours = read_arrays(make().start(grid, initial, num_rounds=2).arrays)
    start = read_arrays(initial)
    moved = max(np.abs(ours[k] - start[k]).max() for k in ours)
    apart = max(np.abs(ours[k] - v).max() for k, v in read_arrays(theirs[name]).items())
    distances[name] = [float(moved), float(apart)]
print("DISTANCES", json.dumps(distances))
"""


@pytest.fixture(scope="module")
def distances() -> dict[str, list[float]]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "DISTANCES" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout.rsplit("DISTANCES", 1)[1])


@pytest.mark.slow  # Flower's own engine, in a process of its own
@pytest.mark.parametrize("strategy", ["fedavg", "distillation"])
def test_flowers_engine_gives_the_same_parameters(
    distances: dict[str, list[float]], strategy: str
) -> None:
    # Flower's random node ids put the clients in another order, so float sums may round apart.
    moved, apart = distances[strategy]
    assert moved > 0.05
    assert apart < 1e-5 * moved
