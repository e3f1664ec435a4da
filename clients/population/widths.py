"""Widths: shapes in which the hidden layers of a chain have fewer units or channels.

A plan says how many of each layer are left, by the layer's name. Networks are chains, such as the
zoo's mlp, lenet5, cnn and vgg9: `nn.Sequential` of linear layers and convolutions, and of what has
no parameters.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Layer = nn.Linear | nn.Conv2d
Widths = dict[str, npt.NDArray[Any]]


def share_of_units(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    plan: Widths,
    client_id: int,
    server_round: int,
    keep: Sequence[Annotated[float, "in (0, 1]"]] = (0.5,),
    from_round: Annotated[int, ">= 1"] = 1,
) -> Widths:
    """Choose once, for good, a share of the units of every hidden layer.

    Args:
        network: A chain.
        inputs: Not looked at.
        labels: Not looked at.
        plan: What was chosen before, which stays.
        client_id: k.
        server_round: 1..R.
        keep: Shares that stay, in (0, 1], rounded up to whole units: client k's is
            `keep[k % len(keep)]`.
        from_round: First round after whose training it is chosen, >= 1.

    Returns:
        Units of each hidden layer, by its name: all but the last, which answers.

    Raises:
        ValueError: A share is out of range, or the network is no chain.
    """
    if bad := [each for each in keep if not 0 < each <= 1]:
        raise ValueError(f"keep={bad[0]}: expected in (0, 1]")
    layers = _chain(network)
    share = keep[client_id % len(keep)]
    if plan or server_round < from_round or share == 1:
        return plan
    return {
        name: np.array(max(1, math.ceil(share * len(layer.weight) - 1e-9)))
        for name, layer in layers[:-1]
    }


def of_largest_norm(network: nn.Module, plan: Widths) -> nn.Module:
    """Prune each layer to its units whose incoming weights have the largest L2 norm.

    What came of units that are pruned does not count in the next layer's norms: "greedy" pruning.

    Args:
        network: A chain; changed in place.
        plan: Units of each layer that are left, by its name.

    Returns:
        The network.

    Raises:
        ValueError: It is no chain, or has no such layer, or fewer units.

    Reference: Li, Kadav, Durdanovic, Samet, Graf, "Pruning filters for efficient ConvNets", ICLR
    2017 (arXiv:1608.08710), sec. 3, there by the L1 norm.
    """

    def largest(weight: Tensor, number: int) -> Tensor:
        order: Tensor = weight.flatten(1).norm(dim=1).argsort(descending=True, stable=True)
        return order[:number].sort().values

    return _narrowed(network, plan, largest)


def first_units(network: nn.Module, plan: Widths) -> nn.Module:
    """Slice the first units out of each layer.

    Args:
        network: A chain; changed in place.
        plan: Units of each layer that are left, by its name.

    Returns:
        The network.

    Raises:
        ValueError: It is no chain, or has no such layer, or fewer units.

    Reference: Diao, Ding, Tarokh, "HeteroFL: Computation and communication efficient federated
    learning for heterogeneous clients", ICLR 2021 (arXiv:2010.01264), sec. 3, without its scaler.
    """
    return _narrowed(network, plan, lambda weight, number: torch.arange(number))


# --- steps ---


def _chain(network: nn.Module) -> list[tuple[str, Layer]]:
    """Find the layers of a chain in order, by name; ValueError names what cannot be in one."""
    found: list[tuple[str, Layer]] = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1):
            found.append((name, module))
        elif type(module) is not nn.Sequential and (
            [*module.parameters()] or [*module.buffers()] or [*module.children()]
        ):
            raise ValueError(
                f"'{name}' is a {type(module).__name__}: expected a chain, nn.Sequential of Linear "
                "and Conv2d and of what has no parameters"
            )
    return found


def _narrowed(
    network: nn.Module, plan: Widths, choice: Callable[[Tensor, int], Tensor]
) -> nn.Module:
    """Leave the units of each layer that are chosen, (weight, how many) -> ascending indices."""
    layers = _chain(network)
    if unknown := plan.keys() - {name for name, _ in layers[:-1]}:
        raise ValueError(f"'{min(unknown)}' of the plan is no hidden layer of the network")
    for (name, layer), (_, after) in pairwise(layers):
        units = len(layer.weight)
        number = int(plan.get(name, units))
        if not 1 <= number <= units:
            raise ValueError(f"'{name}' has {units} units, and the plan wants {number}")
        if number == units:
            continue
        kept = choice(layer.weight.detach(), number).cpu()
        each = after.weight.shape[1] // units  # of a map that was flattened, its pixels
        columns = (kept[:, None] * each + torch.arange(each)).flatten()
        _take(layer, kept, None)
        _take(after, None, columns)
    return network


def _take(layer: Layer, rows: Tensor | None, columns: Tensor | None) -> None:
    """Leave some outputs, or inputs, of a layer."""
    weight = layer.weight.detach()
    weight = weight[rows] if rows is not None else weight
    weight = weight[:, columns] if columns is not None else weight
    layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)
    if rows is not None and layer.bias is not None:
        bias = layer.bias.detach()[rows]
        layer.bias = nn.Parameter(bias, requires_grad=layer.bias.requires_grad)
    after, before = weight.shape[:2]
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = after, before
    else:
        layer.out_channels, layer.in_channels = after, before
