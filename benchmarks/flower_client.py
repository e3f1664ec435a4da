"""The ClientApp that Flower's workers run: model and data stay in the worker, nothing is logged.

A worker finds what to load in its environment and loads it with its first message. Each message
says which client its node is, because Flower numbers nodes at random.
"""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from benchmarks import floor, plain
from benchmarks.work import Federation, Work, initial_model, read_data

FOLDER, MODEL, SMOOTH, STEP = (
    f"BENCHMARK_{name}" for name in ("FOLDER", "MODEL", "SMOOTH", "STEP")
)
STEPS: dict[str, Callable[[nn.Module, Federation, int, int], None]] = {
    "plain": plain.train,
    "lean": floor.train,
}
app = ClientApp()


@cache
def resident() -> tuple[nn.Module, Federation, Callable[..., None]]:
    """Load what every client of this worker shares."""
    torch.set_num_threads(1)
    step = os.environ[STEP]
    work = Work(os.environ[MODEL], 1, 1, 1, smooth=os.environ[SMOOTH] == "True")
    model = initial_model(work, channels_last=step == "lean")
    return model, read_data(Path(os.environ[FOLDER])), STEPS[step]


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train one client from the parameters received and return its parameters."""
    model, federation, step = resident()
    config: Any = message.content["config"]
    arrays: Any = message.content["arrays"]
    model.load_state_dict(arrays.to_torch_state_dict())
    step(model, federation, config["server-round"], config["client"])
    metrics = MetricRecord({"num-examples": len(federation.partitions[config["client"]])})
    # Contiguous, as Flower's records store it: the lean step keeps images' kernels otherwise.
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    content = RecordDict({"arrays": ArrayRecord(state), "metrics": metrics})
    return Message(content, reply_to=message)
