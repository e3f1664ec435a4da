"""Convolutions of stride 2 with a linear bottleneck behind them: FedGen's network."""

import math
from collections.abc import Sequence
from typing import Annotated

from torch import nn

from clients.models.layers import (
    Norm,
    check_int,
    check_task,
    check_widths,
    conv_norm,
    fit_strides,
    two_parts,
)


def strided_cnn(
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    channels: Sequence[Annotated[int, ">= 1"]] = (6, 16),
    hidden: Annotated[int, ">= 1"] = 32,
    norm: Norm = "batch",
) -> nn.Module:
    """Build FedGen's CNN: 3x3 convolutions of stride 2, each norm and ReLU, a linear bottleneck.

    There is no ReLU behind the bottleneck: what the classifier sees has either sign.

    Args:
        image_shape: (channels, height, width) in pixels, each >= 1.
        num_classes: C >= 1.
        channels: output channels of each convolution, one or more, each >= 1.
        hidden: units of the bottleneck, >= 1.
        norm: "batch" or "group".

    Returns:
        Network from images [B, channels, height, width] to logits [B, num_classes];
        26,412 parameters for 1x28x28 and 10 classes, the authors' less the convolutions' biases.

    Reference: Zhu, Hong, Zhou 2021 (arXiv:2105.10056), as in the authors' code.
    """
    check_task(image_shape, num_classes)
    check_widths("channels", channels)
    check_int("hidden", hidden)
    before, height, width = image_shape
    layers: list[nn.Module] = []
    for after, stride in zip(
        channels, fit_strides((height, width), [2] * len(channels)), strict=True
    ):
        layers += [*conv_norm(before, after, 3, norm, stride=stride), nn.ReLU()]
        before = after
        height, width = math.ceil(height / stride[0]), math.ceil(width / stride[1])
    layers += [nn.Flatten(), nn.Linear(before * height * width, hidden)]
    return two_parts(layers, hidden, num_classes)
