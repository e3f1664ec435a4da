"""Whether like clients can minimise an objective in one step: tried on made-up ones."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from clients.data import Task
from clients.execution.stack import Stack, Way
from clients.execution.stacked_gradients import StackedGradients
from clients.seeding import seeded_torch
from clients.training.objective import Anchors, Objective
from clients.training.single_gradients import NetworkGradients


def objective_fault(
    model: nn.Module,
    task: Task,
    way: Way,
    objective: Objective,
    anchors: Anchors,
    targets: Tensor,
) -> str | None:
    """Say what keeps clients of one architecture from minimising an objective in one step.

    It is tried on two made-up clients, the second's batch padded: losses and gradients must be
    those of each one alone. The same arguments give the same answer, whatever numbers they hold.

    Args:
        model: A network of the architecture; not changed.
        task: What it is to predict.
        way: To stack it.
        objective: What is minimised.
        anchors: What a client compares with: only their names and shapes are looked at.
        targets: Labels [n] or probs [n, C]; only the form is looked at.

    Returns:
        The reason, for the user; None if there is none.
    """
    network = deepcopy(model).double().train()
    rng, device = np.random.default_rng(0), next(model.parameters()).device

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.normal(scale=0.1, size=shape)).to(device)

    def made_up(tensor: Tensor) -> Tensor:
        real = tensor.is_floating_point()
        return normal(*tensor.shape) if real else torch.zeros_like(tensor, device=device)

    def state() -> dict[str, Tensor]:
        learned = {name for name, _ in network.named_parameters()}
        named = network.state_dict().items()
        return {n: t + normal(*t.shape) if n in learned else t.clone() for n, t in named}

    def own() -> dict[str, Any]:
        return {
            name: state() if name in objective.networks else tree_map(made_up, each)
            for name, each in anchors.items()
        }

    clients = [_Tried(state(), state(), own()) for _ in range(2)]
    images = task.made_up(rng, 2, 4).to(device)
    images[1, 3] = images[1, 0]
    size = 2, 4, *targets.shape[1:]
    wanted = torch.from_numpy(rng.integers(task.num_classes, size=size)).to(device)
    if targets.is_floating_point():
        wanted = normal(*size).softmax(-1) if task.soft else normal(*size)
    wanted[1, 3] = wanted[1, 0]
    rows = (torch.tensor([[0, 1, 2, 3], [0, 1, 2, 0]]) % len(targets)).to(device)
    try:
        with seeded_torch(rng):
            together = _together(network, way, objective, clients, (images, wanted, rows))
            pairs = zip(*((each[0], each[1, :3]) for each in (images, wanted, rows)), strict=True)
            alone = [
                _alone(network, objective, client, *batch)
                for client, batch in zip(clients, pairs, strict=True)
            ]
    except Exception as error:  # anyone's code
        first = str(error).split("\n", 1)[0]
        return f"its objective cannot run stacked: {type(error).__name__}: {first}"
    return _difference(together, alone)


def _difference(
    together: Sequence[Sequence[Tensor]], alone: Sequence[Sequence[Tensor]]
) -> str | None:
    """Say in what losses, the first numbers of each client, and gradients are not the same."""
    everything = [number for client in (*together, *alone) for number in client]
    if not all(bool(each.isfinite().all()) for each in everything):
        return "its objective gives no finite numbers on made-up clients"
    pairs = [list(zip(*both, strict=True)) for both in zip(together, alone, strict=True)]
    same = [[torch.allclose(a, b, rtol=1e-6, atol=1e-8) for a, b in client] for client in pairs]
    if not all(client[0] for client in same):
        return "its objective makes an example's loss depend on the others of the batch"
    if not all(all(client) for client in same):
        return "its objective gives other gradients together than alone"
    return None


@dataclass(frozen=True)
class _Tried:
    """A made-up client: what its network was at the start, what it is now, what it came with."""

    start: dict[str, Tensor]
    now: dict[str, Tensor]
    anchors: dict[str, Any]


def _together(
    network: nn.Module,
    way: Way,
    objective: Objective,
    clients: Sequence[_Tried],
    batch: tuple[Tensor, Tensor, Tensor],
) -> list[list[Tensor]]:
    """Return, for each client, its sum of losses and its gradients."""
    stack = Stack(network, len(clients), way, axes=batch[0].dim() - 2)
    for member, client in enumerate(clients):
        stack.load(member, client.start)
    anchors = [client.anchors for client in clients]
    gradients_of = StackedGradients(stack, len(clients), objective, anchors, None)
    for member, client in enumerate(clients):
        stack.load(member, client.now)
    tensors = stack.first(len(clients))
    leaves = {name: tensors[name] for name in gradients_of.trained}
    with gradients_of.taps:
        (images, *others), counts = batch, np.array([4, 3])
        sums, gradients = gradients_of(tensors, leaves, counts, images.flatten(0, 1), *others)
    whole = _whole(leaves.values(), gradients)
    return [[sums[k], *(g[k] for g in whole)] for k in range(len(clients))]


def _alone(
    network: nn.Module, objective: Objective, client: _Tried, *batch: Tensor
) -> list[Tensor]:
    network.load_state_dict(client.start)
    gradients_of = NetworkGradients(network, objective, client.anchors, None)
    network.load_state_dict(client.now)
    with gradients_of.taps:
        values, gradients = gradients_of(*batch)
    return [values.sum(), *_whole(gradients_of.named.values(), gradients)]


def _whole(parameters: Iterable[Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor]:
    """Put zeros where a loss does not reach."""
    pairs = zip(parameters, gradients, strict=True)
    return [torch.zeros_like(p) if gradient is None else gradient for p, gradient in pairs]
