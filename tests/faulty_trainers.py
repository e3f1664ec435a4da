"""Trainers with seeded faults, and what remembers in a global, and the lines that tell of them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from clients.data import normalised
from clients.training.loop import train

TRAIN = partial(train, epochs=1, batch_size=16, optimizer=partial(SGD, lr=0.1))


# --- trainers ---


def descended(
    network: Any, dataset: Any, pairs: tuple[Any, Any], rng: Any, loss: Callable[..., Tensor]
) -> list[float]:
    """Take a few steps on examples and what they are to be."""
    indices, targets = pairs
    parameters, found = [*network.parameters()], list[Tensor]()
    for batch in np.array_split(rng.permutation(len(indices)), 3):
        inputs = torch.from_numpy(np.ascontiguousarray(normalised(dataset, indices[batch])))
        found.append(loss(network(inputs), torch.as_tensor(targets)[batch]).mean())
        with torch.no_grad():
            for parameter, gradient in zip(
                parameters, torch.autograd.grad(found[-1], parameters), strict=True
            ):
                parameter -= 0.1 * gradient
    return [float(torch.stack(found).detach().mean())]


def thief(network: Any, dataset: Any, indices: Any, targets: Any, loss: Any, rng: Any) -> Any:
    """Take all that is there."""
    everything = np.arange(len(dataset)), dataset.labels
    return descended(network, dataset, everything, rng, loss)


def label_reader(
    network: Any, dataset: Any, indices: Any, targets: Any, loss: Any, rng: Any
) -> Any:
    return descended(network, dataset, (indices, dataset.labels[indices]), rng, loss)


def misplaced(network: Any, dataset: Any, indices: Any, targets: Any, loss: Any, rng: Any) -> Any:
    """Take examples by their places in the data set."""
    return descended(network, dataset, (np.arange(len(indices)), targets), rng, loss)


def sorting(network: Any, dataset: Any, indices: Any, targets: Any, loss: Any, rng: Any) -> Any:
    """Sort one of two lists."""
    return descended(network, dataset, (np.sort(indices), targets), rng, loss)


def opinionated(network: Any, dataset: Any, indices: Any, targets: Any, loss: Any, rng: Any) -> Any:
    """Have a loss of one's own."""
    return descended(network, dataset, (indices, targets), rng, cross_entropy)


def shuffling(network: Any, dataset: Any, indices: Any, targets: Any, loss: Any, rng: Any) -> Any:
    order = rng.permutation(len(indices))
    indices[:] = indices[order]
    return TRAIN(network, dataset, indices, targets[order], loss, rng)


def relabelling(network: Any, dataset: Any, *rest: Any) -> Any:
    dataset.labels[:] = 0
    return TRAIN(network, dataset, *rest)


# --- what remembers ---

FIRST: dict[Any, Any] = {}
"""Of each key what came first, for all who come later in this process."""


def warmed(network: Any, *what: Any, local: Any) -> Any:
    """Go on from the first client's network."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(FIRST.get(name, parameter))
    losses = TRAIN(network, *what)
    for name, parameter in network.named_parameters():
        FIRST.setdefault(name, parameter.detach().clone())
    return losses


def counting(network: Any, *what: Any, local: Any, seen: list[int] = []) -> Any:  # noqa: B006
    """Note how many came before."""
    losses = TRAIN(network, *what)
    seen.append(0)
    local.note(before=len(seen))
    return losses


def hoarding(network: Any, *what: Any, local: Any) -> Any:
    """Leave each client what the first one had."""
    losses = TRAIN(network, *what)
    local.state["loss"] = FIRST.setdefault("loss", np.array(losses))
    return losses


def unforgiving(
    labels: Any, num_classes: int, client_id: int, server_round: int, *, round_rng: Any, share: Any
) -> Any:
    """Keep a client's first mistakes."""
    if client_id not in FIRST:
        wrong = round_rng.random(len(labels)) < share
        FIRST[client_id] = np.where(wrong, (labels + 1) % num_classes, labels)
    return FIRST[client_id][: len(labels)] if len(labels) <= len(FIRST[client_id]) else labels


def dirty(inputs: Any, *, client_id: int, rng: Any) -> Any:
    mask = FIRST.setdefault(("mask", client_id), rng.random(inputs.shape[2:]) < 0.5)
    return np.where(mask, 0, inputs).astype(inputs.dtype)


class Scaled:
    """Sends what a client's first array makes of others."""

    def encode(self, arrays: Any, *, client_id: int) -> Any:
        size = FIRST.setdefault(("size", client_id), max(np.abs(a).max() for a in arrays.values()))
        return {name: np.clip(array, -size, size) for name, array in arrays.items()}

    def decode(self, arrays: Any) -> Any:
        return arrays


FAULTS: list[tuple[str, Any, str]] = [
    ("trainer", thief, "alone: .*: examples that are not in `indices` change what it learns"),
    ("trainer", label_reader, "alone: .*: the data set's labels change what it learns"),
    ("trainer", misplaced, "examples that are not in `indices` change what it learns"),
    ("trainer", sorting, "gets the target of another example"),
    ("trainer", opinionated, "Minimises the loss .*: another loss would change nothing"),
    ("trainer", shuffling, "as they are: changes `indices` in place"),
    ("trainer", relabelling, "as they are: changes labels of the data set in place"),
    ("trainer", warmed, "client 0 in round 1 learns otherwise behind others: is a global kept"),
    ("trainer", counting, "any order and process.*: client 0 in round 1 learns otherwise"),
    ("trainer", hoarding, "any order and process.*: client 0 in round 1 learns otherwise"),
    ("condition", partial(unforgiving, share=0.5), "client 0 in round 1 has others behind others"),
    ("codec", Scaled(), "of client 1 in round 2 it is other behind others: is a global kept"),
    ("view", dirty, "client 0 in phase train sees otherwise behind others: is a global kept"),
]
"""Kind, plug-in, and what is said of it."""
