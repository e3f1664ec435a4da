"""Layers that run G clients' networks of one architecture side by side.

Their maps lie beside each other as channels, [B, G*C, H, W], and convolutions, norms and pooling
keep them apart; their feature rows lie behind each other, [G, B, D], for one batched matrix
product. Layers take stacked tensors [G, ...] as their parameters, through
`torch.func.functional_call`; the containers run their own `forward`.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional

from clients.execution.masking import Current, MaskedBatchNorm
from clients.models.layers import MaxPool, Residual
from clients.models.mobile import ShuffleUnit

KEPT = (
    *(nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish),
    *(nn.Tanh, nn.Sigmoid, nn.Softplus),
    *(MaxPool, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
"""Layers that treat each channel, or each number, alike and alone."""

CONTAINERS = (nn.Sequential, Residual)
"""Modules whose own `forward` is as right for many clients as for one."""


def widened(model: nn.Module, current: Current) -> nn.Module:
    """Copy a network into one that runs G of its kind.

    Args:
        model: The architecture; not changed.
        current: Through which the caller will say how a batch is filled, and so what G is.

    Returns:
        A network with the same names of parameters and buffers, from what `arranged` makes to
        logits [G, B, classes].

    Raises:
        ValueError: It has a module that cannot be widened.
    """
    return _wide(deepcopy(model), current)


def starts_flat(model: nn.Module) -> bool:
    """Tell whether the images are flattened before anything else happens to them."""
    while isinstance(model, nn.Sequential):
        model = model[0]
    return isinstance(model, nn.Flatten)


def arranged(inputs: Tensor, members: int, axes: int, flat: bool) -> Tensor:
    """Bring inputs into the layout of a widened network.

    Args:
        inputs: [G, B, *input_shape], or [B, *input_shape] shared by all clients.
        members: G.
        axes: Of an input: 1 of a row of a table, 3 of an image [C, H, W].
        flat: Whether the network `starts_flat`, or inputs are rows.

    Returns:
        Rows [G, B, D] ([B, D] if shared) or, of images, maps [B, G*C, H, W].
    """
    if flat:
        return inputs.flatten(-axes)
    if inputs.dim() == 4:
        inputs = inputs.expand(members, *inputs.shape)
    return inputs.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)


def by_client(features: Tensor, members: int) -> Tensor:
    """Bring features out of the layout of a widened network.

    Args:
        features: Rows [G, B, D] or maps [B, G*C, H, W].
        members: G.

    Returns:
        [G, B, D] or [G, B, C, H, W].
    """
    if features.dim() == 3:
        return features
    return torch.unflatten(features, 1, (members, -1)).transpose(0, 1)


def _wide(module: nn.Module, current: Current) -> nn.Module:
    kind = type(module)  # not isinstance: a subclass may compute something else
    if kind in KEPT:
        return module
    if kind in (*CONTAINERS, ShuffleUnit):
        for name, child in module.named_children():
            setattr(module, name, _wide(child, current))
        return WideShuffleUnit(module, current) if isinstance(module, ShuffleUnit) else module
    if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
        return WideFlatten(current)
    if isinstance(module, nn.Linear) and kind is nn.Linear:
        return WideLinear(module)
    if isinstance(module, nn.Conv2d) and kind is nn.Conv2d and module.padding_mode == "zeros":
        return WideConv2d(module, current)
    if isinstance(module, nn.GroupNorm):
        return WideGroupNorm(module, current)
    if isinstance(module, nn.BatchNorm2d):
        return MaskedBatchNorm(module, current, wide=True)
    raise ValueError(f"{kind.__name__} is not among the layers that can be widened")


class WideFlatten(nn.Module):
    """[B, G*C, H, W] -> [G, B, C*H*W]; rows stay as they are."""

    def __init__(self, current: Current) -> None:
        super().__init__()
        self.current = current

    def forward(self, x: Tensor) -> Tensor:
        """Flatten maps."""
        if x.dim() < 4:
            return x
        members = len(self.current.filling.counts)
        return torch.unflatten(x, 1, (members, -1)).flatten(2).transpose(0, 1)


class WideLinear(nn.Module):
    """[G, B, D], or [B, D] shared by all clients, -> [G, B, E]."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Multiply with weight [G, E, D], add bias [G, E]."""
        if x.dim() == 2:
            bias = None if self.bias is None else self.bias.flatten()
            rows = functional.linear(x, self.weight.flatten(0, 1), bias)
            return torch.unflatten(rows, 1, (len(self.weight), -1)).transpose(0, 1)
        # W xT, not x WT: half the time in MKL where E is small, and autograd then makes the
        # gradient in the order of the weight: 1.3 ms, not 8 ms, for 100 clients of 784x10.
        if self.bias is None:
            return torch.bmm(self.weight, x.mT).mT.contiguous()
        return torch.baddbmm(self.bias[:, :, None], self.weight, x.mT).mT.contiguous()


class WideConv2d(nn.Module):
    """[B, G*C, H, W] -> [B, G*D, H', W'], each client's channels a group of their own."""

    def __init__(self, convolution: nn.Conv2d, current: Current) -> None:
        super().__init__()
        self.weight = convolution.weight
        self.bias = convolution.bias
        self.stride = convolution.stride
        self.padding = convolution.padding
        self.dilation = convolution.dilation
        self.groups = convolution.groups
        self.current = current

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with weight [G, D, C, k, k], add bias [G, D]."""
        return functional.conv2d(
            x,
            self.weight.flatten(0, 1),
            None if self.bias is None else self.bias.flatten(),
            self.stride,
            self.padding,
            self.dilation,
            self.groups * len(self.weight),
        )


class WideGroupNorm(nn.Module):
    """[B, G*C, H, W] -> the same; padding changes nothing, every example is normalised alone."""

    def __init__(self, norm: nn.GroupNorm, current: Current) -> None:
        super().__init__()
        self.weight = norm.weight
        self.bias = norm.bias
        self.num_groups = norm.num_groups
        self.eps = norm.eps
        self.current = current

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; weight and bias [G, C]."""
        groups = self.num_groups * len(self.current.filling.counts)
        weight, bias = (None if t is None else t.flatten() for t in (self.weight, self.bias))
        return functional.group_norm(x, groups, weight, bias, self.eps)


class WideShuffleUnit(nn.Module):
    """`ShuffleUnit` on [B, G*C, H, W]."""

    def __init__(self, unit: ShuffleUnit, current: Current) -> None:
        super().__init__()
        self.left = unit.left
        self.right = unit.right
        self.split = unit.split
        self.current = current

    def forward(self, x: Tensor) -> Tensor:
        """Split, run and interleave within each client's channels."""
        members = len(self.current.filling.counts)
        first = second = x
        if self.split:
            halves = torch.unflatten(x, 1, (members, 2, -1))
            first, second = (halves[:, :, i].flatten(1, 2) for i in (0, 1))
        sides = [
            torch.unflatten(side, 1, (members, -1))
            for side in (self.left(first), self.right(second))
        ]
        return torch.stack(sides, dim=3).flatten(1, 3)
