"""SCAFFOLD: gradients are corrected by what clients have drifted so far.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic Controlled Averaging for
Federated Learning", ICML 2020 (arXiv:1910.06378), with option II for the control variates. Clients
train by plain SGD, and gradients are corrected before they are clipped; statistics of batch norm
are averaged as they are.

    python run.py --config-dir examples/scaffold strategy=scaffold clients=same \
        clients.training.optimizer.momentum=0
"""

from functools import partial

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from clients.execution.trainer_calls import numbers_of
from clients.handlers.base import Handler
from clients.handlers.compute_cost import local_training
from clients.handlers.parameters import train_parameters
from clients.handlers.state import client_of
from clients.messages.accumulator import Reducer, fold_replies
from clients.messages.arrays import read_arrays, write_arrays
from clients.training.batches import local_steps
from clients.training.losses import cross_entropy
from clients.training.objective import Objective, OnLogits
from strategies.aggregation.parameters import cast_to
from strategies.aggregation.record_sums import RecordSums
from strategies.base import BaseStrategy
from strategies.cohorts import to_cohort

ARRAYS, CONTROL, SHIFTS = "arrays", "control", "shifts"


def shifted(gradients, parameters, anchors):
    """Add c - c_k to the gradients."""
    return {name: gradient + anchors[SHIFTS][name] for name, gradient in gradients.items()}


OBJECTIVE = Objective(OnLogits(cross_entropy), correct=shifted, anchors=(SHIFTS,))


def train(clients, requests, contexts, device):
    """Train from x with corrected gradients; send what x, and the control variates, became."""
    start, control = (read_arrays(requests[0].content[name]) for name in (ARRAYS, CONTROL))
    nothing = write_arrays({n: np.zeros_like(c) for n, c in control.items()})
    kept = {client_of(c): read_arrays(c.state.get(CONTROL, nothing)) for c in contexts}

    def anchors(client_id):
        own = kept[client_id]
        return {SHIFTS: {n: torch.tensor(c - own[n], device=device) for n, c in control.items()}}

    lr = clients.local_training.keywords["optimizer"].keywords["lr"]
    replies = train_parameters(clients, requests, contexts, device, OBJECTIVE, anchors)
    for context, reply in zip(contexts, replies, strict=True):
        if not isinstance(reply, Exception):
            own, end = kept[client_of(context)], read_arrays(reply.content[ARRAYS])
            steps = local_steps(clients.local_training, reply.content["metrics"]["num-examples"])
            scale = 1 / (max(1, steps) * lr)
            new = {n: own[n] - c + scale * (start[n] - end[n]) for n, c in control.items()}
            context.state[CONTROL] = write_arrays(new)
            reply.content[CONTROL] = write_arrays({n: new[n] - own[n] for n in control})
        yield reply


def fault(request, reply):
    """Look for what cannot be summed: other names than were sent; their shapes are looked at."""
    odd = [name for name in (ARRAYS, CONTROL) if {*reply.content[name]} != {*request.content[name]}]
    return f"the arrays of '{odd[0]}' are not those that it was sent" if odd else None


TRAIN = Handler(
    "train.scaffold",
    train,
    records=(ARRAYS, CONTROL),
    replies={ARRAYS: ArrayRecord, CONTROL: ArrayRecord, "metrics": MetricRecord},
    fault=fault,
    multiplications=local_training,
)


class Scaffold(BaseStrategy):
    """x <- x + rate * mean(y - x), c <- c + sum(c_k' - c_k) / N."""

    handlers = (TRAIN,)
    averages = own_objective = True

    def __init__(self, *, student, num_clients, seed, rate=1.0, fraction=1.0):
        if rate <= 0:
            raise ValueError(f"strategy.rate={rate}: expected > 0")
        self.clients, self.seed, self.rate, self.fraction = num_clients, seed, rate, fraction
        learned = dict(student.named_parameters())
        self.control = {n: np.zeros(p.shape, np.float32) for n, p in learned.items()}
        self.arrays = {}

    @staticmethod
    def require_clients(clients):
        how = numbers_of(clients.local_training) or {}
        optimizer = how.get("optimizer")
        sgd = isinstance(optimizer, partial) and optimizer.func is torch.optim.SGD
        uneven = not sgd or optimizer.keywords.get("momentum") or how.get("scheduler")
        if uneven or how.get("stop_below") is not None:
            raise ValueError(
                "clients.training: expected optimizer.momentum=0, scheduler=null and "
                "stop_below=null, of SGD, for option II, which counts steps of one length"
            )

    def intake(self, server_round, phase):
        return Reducer(partial(RecordSums, ARRAYS, CONTROL))

    def configure_train(self, server_round, arrays, config, grid):
        self.arrays = read_arrays(arrays)
        about = ConfigRecord({"server-round": server_round})
        control = write_arrays(self.control)
        content = RecordDict({ARRAYS: arrays, CONTROL: control, "config": about})
        whom = {"fraction": self.fraction, "seed": self.seed, "server_round": server_round}
        return to_cohort(grid, TRAIN.kind, content, **whom)

    def aggregate_train(self, server_round, replies):
        total = RecordSums(ARRAYS, CONTROL)
        if not fold_replies(total, replies):
            return None, None
        means = total.mean(ARRAYS)
        for name, value in total.sums[CONTROL].items():
            self.control[name] = (self.control[name] + value / self.clients).astype(np.float32)
        old = {n: self.arrays[n] for n in self.control}  # the rest are statistics
        new = means | {n: x + self.rate * (means[n] - x) for n, x in old.items()}
        return write_arrays(cast_to({n: a.dtype for n, a in self.arrays.items()}, new)), None

    def state(self):
        return RecordDict({CONTROL: write_arrays(self.control)})

    def restore(self, state):
        self.control = read_arrays(state[CONTROL])
