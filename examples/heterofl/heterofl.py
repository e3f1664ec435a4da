"""HeteroFL and FedRolex: clients train slices of the global network, averaged number by number.

Diao, Ding, Tarokh, "HeteroFL", ICLR 2021 (arXiv:2010.01264); Alam, Liu, Yan, Zhang, "FedRolex",
NeurIPS 2022 (arXiv:2212.01548). A number becomes the mean over the clients that have it, and stays
where nobody has.

    python run.py --config-dir examples/heterofl strategy=heterofl clients=slices student=sliced

From recollection, so to be chosen: weights by examples (the authors may count clients), the scaler.
Left out: static batch norm, its statistics asked for in the end, and masks of classes not there.
"""

from functools import partial

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from torch import nn

from clients.messages.accumulator import Reducer, fold_replies
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import client_id_of
from clients.messages.sizes import examples_in
from clients.models.factory import build, parameters_of
from strategies.aggregation.parameters import cast_to
from strategies.base import BaseStrategy
from strategies.cohorts import cohort_of
from strategies.server.averaging import unlike_request


class Scaler(nn.Module):
    """Divides by the share of units that there are, in training, as dropout does."""

    def __init__(self, share):
        super().__init__()
        self.share = share

    def forward(self, inputs):
        return inputs / self.share if self.training else inputs


def sliced(image_shape, num_classes, *, tier=1.0, hidden=(64, 64), scaler=True):
    """Build a perceptron of which each hidden layer has this share of its units."""
    if not 0 < tier <= 1:
        raise ValueError(f"tier={tier}: expected a share in (0, 1]")
    layers, before = [nn.Flatten()], int(np.prod(image_shape))
    for number in hidden:
        units = max(1, round(tier * number))
        layers += [nn.Linear(before, units), Scaler(tier if scaler else 1.0), nn.ReLU()]
        before = units
    return nn.Sequential(*layers, nn.Linear(before, num_classes))


def shapes_of(arrays):
    """Return the shape of each array by name."""
    return {name: array.shape for name, array in arrays.items()}


def places(whole, own, shift=0):
    """Say which numbers of the whole, a chain of layers, a slice holds: indices by name.

    Both are shapes by name. A slice begins with unit `shift`; after the last unit comes the first.
    """
    found, units = {}, 0
    for name, shape in whole.items():
        axes = []
        for axis, (size, number) in enumerate(zip(shape, own[name], strict=True)):
            each = max(1, size // units) if axis == 1 and units else 1  # pixels of a flat map
            kept = (np.arange(number // each) + shift * (number < size)) % (size // each)
            axes.append((kept[:, None] * each + np.arange(each)).ravel())
        found[name], units = np.ix_(*axes), shape[0] if shape else units
    return found


class Sums:
    """Weighted sums, and the weights, of each number of the global network, in float64."""

    def __init__(self, whole, shift, by_examples):
        self.whole, self.shift, self.by_examples = whole, shift, by_examples
        self.sums, self.mass = ({n: np.zeros(s) for n, s in whole.items()} for _ in range(2))

    def add(self, content):
        weight = examples_in(content["metrics"]) if self.by_examples else 1.0
        arrays = read_arrays(content["arrays"])
        for name, at in places(self.whole, shapes_of(arrays), self.shift).items():
            self.sums[name][at] += weight * arrays[name]
            self.mass[name][at] += weight

    def merge(self, part):
        for name, sums in (("sums", self.sums), ("mass", self.mass)):
            for key, array in read_arrays(part[name]).items():
                sums[key] += array

    def part(self):
        return RecordDict({"sums": write_arrays(self.sums), "mass": write_arrays(self.mass)})


class HeteroFL(BaseStrategy):
    """Each client trains the slice of its architecture's shapes: the first units, or rolling."""

    def __init__(
        self, *, student, models, architectures, test, seed, window, by_examples, fraction
    ):
        if window not in ("first", "rolling"):
            raise ValueError(f"strategy.window={window}: expected first or rolling")
        self.whole, self.own = shapes_of(parameters_of(student)), {}
        for name, model in models.items():
            own = shapes_of(parameters_of(build(model, test.task, np.random.default_rng(0))))
            pairs = [(own.get(key, ()), shape) for key, shape in self.whole.items()]
            if not all(len(a) == len(b) and np.less_equal(a, b).all() for a, b in pairs):
                raise ValueError(f"architecture '{name}' is no slice of the student")
            self.own[name] = own
        self.architectures, self.seed, self.fraction = architectures, seed, fraction
        self.rolls, self.by_examples, self.arrays = window == "rolling", by_examples, {}

    def shift(self, server_round):
        """Return the unit that slices begin with."""
        return server_round - 1 if self.rolls else 0

    def intake(self, server_round, phase):
        about = self.whole, self.shift(server_round), self.by_examples
        return Reducer(partial(Sums, *about), unlike_request)

    def configure_train(self, server_round, arrays, config, grid):
        self.arrays, contents, about = read_arrays(arrays), {}, {"server-round": server_round}
        for name, own in self.own.items():  # one for all who have this architecture
            at = places(self.whole, own, self.shift(server_round))
            slices = write_arrays({n: self.arrays[n][each] for n, each in at.items()})
            contents[name] = RecordDict({"arrays": slices, "config": ConfigRecord({**about})})
        whom = {"fraction": self.fraction, "seed": self.seed, "server_round": server_round}
        cohort = cohort_of(grid, **whom)
        names = [self.architectures[client_id_of(node)] for node in cohort]
        return [Message(contents[n], node, "train") for n, node in zip(names, cohort, strict=True)]

    def aggregate_train(self, server_round, replies):
        total = self.intake(server_round, "train").accumulator()
        fold_replies(total, replies)
        new = {name: old.astype(np.float64) for name, old in self.arrays.items()}
        for name, mass in total.mass.items():
            np.divide(total.sums[name], mass, out=new[name], where=mass > 0)
        held = np.concatenate([mass.ravel() > 0 for mass in total.mass.values()])
        cast = cast_to({name: old.dtype for name, old in self.arrays.items()}, new)
        return write_arrays(cast), MetricRecord({"trained_share": float(held.mean())})

    def state(self):
        return RecordDict()

    def restore(self, state): ...
