"""SCAFFOLD: gradients are corrected by what clients have drifted so far.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic Controlled Averaging for
Federated Learning", ICML 2020 (arXiv:1910.06378), with option II for the control variates. Clients
train by plain SGD; statistics of batch norm are averaged as they are.

    python run.py --config-dir examples/scaffold strategy=scaffold clients=same \
        clients.training.optimizer.momentum=0
"""

from functools import partial

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from clients.execution.model_cache import arrays_of, as_tensors
from clients.handlers.base import Handler, each
from clients.handlers.cost import local_training
from clients.handlers.state import client_of
from clients.messages.accumulator import Reducer, is_part
from clients.messages.arrays import read_arrays, write_arrays
from clients.seeding import Purpose, generator
from strategies.base import BaseStrategy
from strategies.cohorts import draw

ARRAYS, CONTROL = "arrays", "control"


def corrected(make, shifts, steps, parameters):
    """Make an optimiser that adds c - c_k to each gradient, and notes its steps."""
    optimizer = make(parameters)

    def correct(*_):
        steps.append(1)
        for parameter, shift in zip(parameters, shifts, strict=True):
            parameter.grad.add_(shift)

    optimizer.register_step_pre_hook(correct)
    return optimizer


def train(clients, request, context, device):
    """Train from x with corrected gradients; send what x, and the control variate, became."""
    client_id, server_round = client_of(context), request.content["config"]["server-round"]
    start, control = (read_arrays(request.content[name]) for name in (ARRAYS, CONTROL))
    kept = context.state.get(CONTROL)
    own = {n: np.zeros_like(c) for n, c in control.items()} if kept is None else read_arrays(kept)
    name = clients.architectures[client_id]
    network = clients.place(device).networks.loaded(name, as_tensors(start, device))
    shifts = [torch.tensor(control[n] - own[n], device=device) for n in control]
    make, steps = clients.local_training.keywords["optimizer"], []
    optimizer = partial(corrected, make, shifts, steps)
    losses = clients.learn(network, client_id, server_round, optimizer=optimizer)
    end, scale = arrays_of(network.state_dict()), 1 / (max(1, len(steps)) * make.keywords["lr"])
    new = {n: own[n] - control[n] + scale * (start[n] - end[n]) for n in control}  # option II
    context.state[CONTROL] = write_arrays(new)
    moved = write_arrays({n: new[n] - own[n] for n in control})
    examples = len(clients.partitions[client_id])
    metrics = MetricRecord({"num-examples": examples, "train-loss": sum(losses[-1:])})
    return RecordDict({ARRAYS: write_arrays(end), CONTROL: moved, "metrics": metrics})


def fault(request, reply):
    """Look for what cannot be summed: other names than were sent; their shapes are looked at."""
    odd = [name for name in (ARRAYS, CONTROL) if {*reply.content[name]} != {*request.content[name]}]
    return f"the arrays of '{odd[0]}' are not those that it was sent" if odd else None


TRAIN = Handler(
    "train.scaffold",
    each(train),
    records=(ARRAYS, CONTROL),
    replies={ARRAYS: ArrayRecord, CONTROL: ArrayRecord, "metrics": MetricRecord},
    fault=fault,
    multiplications=local_training,
)


class Sums:
    """Sums over clients, in float64, of parameters and of how control variates moved."""

    def __init__(self):
        self.count, self.sums = 0, {ARRAYS: {}, CONTROL: {}}

    def add(self, content, count=1):
        self.count += count
        for name, sums in self.sums.items():
            for key, array in read_arrays(content[name]).items():
                sums[key] = sums.get(key, 0) + array.astype(np.float64)

    def merge(self, part):
        self.add(part, int(part["count"]["clients"]))

    def part(self):
        records = {name: write_arrays(sums) for name, sums in self.sums.items()}
        return RecordDict({**records, "count": ConfigRecord({"clients": self.count})})


class Scaffold(BaseStrategy):
    """x <- x + rate * mean(y - x), c <- c + sum(c_k' - c_k) / N."""

    handlers = (TRAIN,)

    def __init__(self, *, student, num_clients, seed, rate=1.0, fraction=1.0):
        self.clients, self.seed, self.rate, self.fraction = num_clients, seed, rate, fraction
        learned = dict(student.named_parameters())
        self.control = {n: np.zeros(p.shape, np.float32) for n, p in learned.items()}
        self.arrays = {}

    def intake(self, server_round, phase):
        return Reducer(Sums)

    def configure_train(self, server_round, arrays, config, grid):
        self.arrays = read_arrays(arrays)
        about = ConfigRecord({"server-round": server_round})
        control = write_arrays(self.control)
        content = RecordDict({ARRAYS: arrays, CONTROL: control, "config": about})
        rng = generator(self.seed, Purpose.COHORT, server_round)
        cohort = draw(grid.get_node_ids(), self.fraction, rng)
        return [Message(content, node_id, TRAIN.kind) for node_id in cohort]

    def aggregate_train(self, server_round, replies):
        total = Sums()
        for reply in replies:
            if reply.has_content():
                (total.merge if is_part(reply) else total.add)(reply.content)
        means = {name: value / total.count for name, value in total.sums[ARRAYS].items()}
        for name, value in total.sums[CONTROL].items():
            self.control[name] = (self.control[name] + value / self.clients).astype(np.float32)
        new = {n: old + self.rate * (means[n] - old) for n, old in self.arrays.items()}
        return write_arrays({n: _like(self.arrays[n], value) for n, value in new.items()}), None

    def state(self):
        return RecordDict({CONTROL: write_arrays(self.control)})

    def restore(self, state):
        self.control = read_arrays(state[CONTROL])


def _like(old, value):
    whole = np.issubdtype(old.dtype, np.integer)  # batch norms count their batches
    return (np.round(value) if whole else value).astype(old.dtype)
