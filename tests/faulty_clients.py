"""What clients are, have and say, with seeded faults, and the lines that tell of them."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clients import data
from clients.data.task import classification
from clients.messages.field import Field
from clients.models.confidence import energy
from clients.population.profiles import Profiles
from clients.population.shape_plans import Shape


class Kept:
    """Calls a function, and keeps what it gave the first time, for ever."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.said = function, None

    def __call__(self, *what: Any) -> Any:
        self.said = self.function(*what) if self.said is None else self.said
        return self.said


def in_train_mode(asked: Any) -> Tensor:
    inputs = torch.from_numpy(np.ascontiguousarray(asked.inputs))
    with torch.no_grad():
        found: Tensor = asked.network()(inputs).logsumexp(-1)
    return found


def jittered(inputs: Any) -> Any:
    return inputs + np.random.normal(size=inputs.shape).astype(np.float32)


def tossed(labels: Any, *rest: Any) -> Any:
    return np.random.permutation(labels)


def in_three(labels: Any, num_clients: int, rng: Any) -> Any:
    return np.array_split(rng.permutation(len(labels)), 3)


def blocks(labels: Any, num_clients: int, rng: Any) -> Any:
    return list(np.arange(len(labels)).reshape(num_clients, -1))


def of_sixty(labels: Any, num_clients: int, rng: Any) -> Any:
    return np.array_split(rng.permutation(60), num_clients)


def sorting(labels: Any, num_clients: int, rng: Any) -> Any:
    labels.sort()
    return np.array_split(rng.permutation(len(labels)), num_clients)


def dealt(labels: Any, num_clients: int, rng: Any) -> Any:
    return np.array_split(np.random.permutation(len(labels)), num_clients)


def noisy_probe(network: Any, inputs: Tensor, labels: Tensor) -> dict[str, float]:
    return {"drawn": float(np.random.normal())}


class Gaudy(nn.Linear):
    """Centres its batch."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(16, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward((inputs - inputs.mean(0)).flatten(1))


class Shy(nn.Linear):
    """Centres all of its batch but the first."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(16, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        said = super().forward(inputs.flatten(1))
        return said if len(said) < 3 else torch.cat([said[:1], said[1:] - said[1:].mean(0)])


def constant(num_classes: int) -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, num_classes))
    nn.init.ones_(network[1].weight)
    nn.init.zeros_(network[1].bias)
    return network


def near_mean(network: Any, inputs: Tensor) -> Tensor:
    said = network(inputs).detach()
    return torch.exp(-(said - said.mean(0)).norm(dim=1))


def upside_down(network: Any, inputs: Tensor, *, own: Tensor) -> Tensor:
    return 1 - energy(network, inputs, own=own)


class Coder:
    """A codec of two functions."""

    def __init__(self, encode: Any = dict, decode: Any = dict) -> None:
        self._encode, self._decode = encode, decode

    def encode(self, arrays: Any) -> Any:
        return self._encode(arrays)

    def decode(self, arrays: Any) -> Any:
        return self._decode(arrays)


def halved(arrays: Any) -> Any:
    return {name: array.astype(np.float16) for name, array in arrays.items()}


def hushed(arrays: Any) -> Any:
    return {name: np.nan_to_num(array) for name, array in arrays.items()}


class Opposed:
    """Sends minus what has changed, or what there is."""

    def encode(self, arrays: Any, *, received: Any = None) -> Any:
        return {n: (received[n] if received else 0) - array for n, array in arrays.items()}

    def decode(self, arrays: Any, *, received: Any = None) -> Any:
        return {n: a + received[n] if received else a for n, a in arrays.items()}


def negated(arrays: Any) -> Any:
    return {name: -array for name, array in arrays.items()}


def tripled(arrays: Any) -> Any:
    return {name: 3 * array for name, array in arrays.items()}


def shaken(arrays: Any) -> Any:
    return {n: a + np.random.normal(size=a.shape).astype(np.float32) for n, a in arrays.items()}


def of_two_axes(arrays: Any) -> Any:
    return {name: array for name, array in arrays.items() if name != "logits"}


# --- shapes ---


def four(network: Any, inputs: Tensor, labels: Tensor) -> dict[str, Any]:
    return {"units": np.array(4)}


def any_number(network: Any, inputs: Tensor, labels: Tensor) -> dict[str, Any]:
    return {"units": np.array(np.random.randint(2, 1000))}


def fresh(network: Any, plan: Any) -> nn.Module:
    """Make another network, and forget what was learned."""
    units = int(plan["units"])
    return nn.Sequential(nn.Flatten(), nn.Linear(16, units), nn.ReLU(), nn.Linear(units, 4))


def growing(network: Any, plan: Any) -> nn.Module:
    """Go by what it finds, not by the plan."""
    units = int(sum((p > 0).sum() for p in network.parameters()))
    return fresh(network, {"units": units})


# --- data ---


def told_apart(**changes: Any) -> Any:
    """Read blobs, and change something of the test set."""
    train, test = data.blobs(num_examples=80, num_classes=4)
    return train, replace(test, **changes)


def unscaled() -> Any:
    return tuple(replace(each, mean=(0.0,), std=(1e-3,)) for each in data.blobs(num_examples=80))


def lacking() -> Any:
    train, test = data.blobs(num_examples=80, num_classes=4)
    return data.subset(train, np.flatnonzero(train.labels != 2)), test


def leaked() -> Any:
    train, _ = data.blobs(num_examples=80, num_classes=4)
    return train, data.subset(train, np.arange(20))


def unseeded() -> Any:
    return data.blobs(num_examples=80, num_classes=4, seed=np.random.randint(1 << 30))


def stirred(proxy: Any) -> Any:
    return data.subset(proxy, np.random.permutation(len(proxy)))


def one_speed(num_clients: int, rng: Any) -> Any:
    return Profiles(*(np.ones(4) for _ in range(4)))


def any_speed(num_clients: int, rng: Any) -> Any:
    return Profiles(*(1 + np.random.random(num_clients) for _ in range(4)))


FAULTS: list[tuple[str, Any, str]] = [
    ("field", Field(in_train_mode), "in eval mode.*: says something else"),
    ("field", Field(Kept(lambda asked: asked.logits.sum(-1))), "its rows are those of other"),
    ("field", Field(lambda asked: asked.logits), "shape and dtype.*is of shape"),
    ("view", lambda inputs: inputs[:1], r"gave inputs of float32 \(1, "),
    ("view", jittered, "by its generator alone: in phase train it shows something else"),
    ("view", lambda inputs, *, round: inputs, "needs 'round'"),
    (
        "condition",
        lambda labels, *rest: labels + 5,
        "FAIL  Gives labels .*clients.condition",
    ),
    ("condition", tossed, "a second call gives others"),
    ("condition", lambda a, b, c, d, *, votes: a, "needs 'votes', and is given ids"),
    ("probe", lambda network, x, y: {}, "numbers by name: returns nothing"),
    ("probe", noisy_probe, "those that they are: finds something else"),
    ("probe", lambda network, x, y, *, epsilon: {"a": 1}, "needs 'epsilon'"),
    ("partition", lambda labels, k, rng: [np.arange(60)] * k, "120 examples have two owners"),
    ("partition", in_three, "Does so for 2 clients.*: gives 3 parts to 2 clients"),
    ("partition", blocks, "of 53 examples.*: ValueError: cannot reshape array"),
    ("partition", of_sixty, r"in 0..59, expected 0..52 \(K=3, n=53\)"),
    ("partition", sorting, "Leaves the labels .*: changes them in place"),
    ("partition", dealt, "the same seed gives other parts"),
    ("partition", lambda labels, k, rng, *, ratio: [], "needs 'ratio', and is given ids"),
    ("model", Shy, "each for itself: an answer depends on the other inputs"),
    ("model", Gaudy, "each for itself: an answer depends on the other inputs"),
    ("model", constant, "others with another: another seed gives the same"),
    ("model", lambda width: nn.Linear(16, 4), "needs 'width', and is given input_shape"),
    ("confidence", lambda network, inputs: torch.full((len(inputs),), 2.0), "to 2: expected in"),
    ("confidence", lambda network, x: torch.rand(len(x)), "own generator alone: gives something"),
    ("confidence", upside_down, r"the client never saw: is 0\.4\d of own .*upside down"),
    ("confidence", near_mean, "by itself, unless it draws: an input's confidence depends"),
    ("confidence", lambda network, x: torch.ones(len(x)), "says the same of any network"),
    ("confidence", lambda network, x, *, width: x, "needs 'width', and is given own, negatives"),
    (
        "proxy_condition",
        lambda proxy: proxy.inputs,
        "FAIL  Gives a data set of the proxy",
    ),
    ("proxy_condition", stirred, "a second call gives others"),
    ("proxy_condition", lambda proxy, *, share: proxy, "needs 'share', and is given rng, test"),
    ("profile", one_speed, "4 profiles for 6 clients"),
    ("profile", any_speed, "another generator"),
    ("profile", lambda num_clients, rng, *, speed: 1, "needs 'speed'"),
    ("codec", Coder(halved), "FAIL  Brings back a network's parameters.* as float16"),
    ("codec", Coder(of_two_axes), "FAIL  Brings back answers as well"),
    ("codec", Coder(shaken), "a second call sends something else"),
    ("codec", Opposed(), "Brings arrays nearer .*: what arrives points against"),
    ("codec", Coder(negated), "Brings arrays nearer .*: what arrives points against"),
    ("codec", Coder(tripled), "Brings arrays nearer .*: what arrives is as far off"),
    ("codec", Coder(hushed), "a NaN comes back as a number"),
    ("shape", Shape(lambda network, x, y: None, fresh), "no client's network changes its shape"),
    ("shape", Shape(any_number, fresh), "keeps nothing: a second time it chooses otherwise"),
    ("shape", Shape(four, growing), "as training left it: .*a plan makes different ones"),
    ("shape", Shape(four, fresh), "what training left is lost"),
    ("data", partial(told_apart, std=(2.0,)), r"std is \(.*\) and \(2.0,\)"),
    (
        "data",
        partial(told_apart, task=classification((1, 4, 4), 5)),
        "num_classes of the task is 4",
    ),
    ("data", lambda: 3, "gives int, expected a train and a test Dataset"),
    ("data", unseeded, "a second time others: is its generator seeded"),
    ("data", unscaled, "deviation .* of what networks see"),
    ("data", lacking, r"none of \[2\]"),
    ("data", leaked, "20 of 20 test inputs are train inputs too"),
]
"""Kind, plug-in, and what is said of it."""
