"""Networks without normalisation: linear, fully connected, and plain convolutional."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from torch import nn

from clients.models.layers import (
    MaxPool,
    Size,
    check_int,
    check_task,
    check_widths,
    he_init,
    two_parts,
)

KERNEL = 5  # side of the LeNet-5 and FedAvg CNN kernels
HALF = KERNEL // 2  # the padding that keeps the size of a map


def _dense(widths: Sequence[int]) -> list[nn.Module]:
    """Make Linear + ReLU from each width to the next."""
    pairs = ((nn.Linear(before, after), nn.ReLU()) for before, after in pairwise(widths))
    return [module for pair in pairs for module in pair]


def _pooled_conv(
    before: int, after: int, kernel: int, padding: Size, size: Size
) -> tuple[list[nn.Module], Size]:
    """Make convolution, 2x2 max-pool and ReLU for a map of this size; say what size is left.

    The order of the last two changes no number and no gradient: the larger stays the larger. Pooled
    first, ReLU has a quarter to do: the FedAvg CNN answers 5 to 25 % faster and trains 5 to
    10 % faster, one thread, AVX-512. Not where one pixel is left: what is tapped is the map before.
    """
    height, width = (n + 2 * p - kernel + 1 for n, p in zip(size, padding, strict=True))
    window = (min(2, height), min(2, width))  # an axis of 1 pixel is not pooled
    conv = nn.Conv2d(before, after, kernel, padding=padding)
    left = height // window[0], width // window[1]
    after_it: list[nn.Module] = [MaxPool(window), nn.ReLU()]
    return [conv, *(after_it if math.prod(left) > 1 else reversed(after_it))], left


def logistic_regression(image_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Build multinomial logistic regression; its features are the pixels.

    Args:
        image_shape: (channels, height, width) in pixels, or any shape, each >= 1.
        num_classes: C >= 1.

    Returns:
        Network from inputs [B, *image_shape] to logits [B, num_classes].

    Reference: Cox 1958, The regression analysis of binary sequences.
    """
    check_task(image_shape, num_classes, any_shape=True)
    return two_parts([nn.Flatten()], math.prod(image_shape), num_classes)


def mlp(
    image_shape: tuple[int, ...],
    num_classes: int,
    *,
    hidden: Sequence[Annotated[int, ">= 1"]] = (200, 200),
) -> nn.Module:
    """Build a fully connected network with ReLU ("2NN" of the FedAvg paper by default).

    Args:
        image_shape: (channels, height, width) in pixels, or any shape, each >= 1.
        num_classes: C >= 1.
        hidden: units of each hidden layer, one or more, each >= 1.

    Returns:
        Network from inputs [B, *image_shape] to logits [B, num_classes];
        199,210 parameters for 1x28x28 and 10 classes.

    Reference: McMahan et al. 2017, section 3 (arXiv:1602.05629).
    """
    check_task(image_shape, num_classes, any_shape=True)
    check_widths("hidden", hidden)
    layers = [nn.Flatten(), *_dense([math.prod(image_shape), *hidden])]
    return two_parts(layers, hidden[-1], num_classes)


def lenet5(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Build LeNet-5 as it is written today, with ReLU and max-pooling.

    Its 5x5 convolutions are unpadded, as in the paper, where the map has at least 5 pixels on an
    axis; on a smaller axis (second convolution of an 8x8 image) they are padded with 2.

    Args:
        image_shape: (channels, height, width) in pixels, each >= 1.
        num_classes: C >= 1.

    Returns:
        Network from images [B, channels, height, width] to logits [B, num_classes];
        44,426 parameters for 1x28x28 and 10 classes.

    Reference: LeCun et al. 1998, Gradient-based learning applied to document recognition.
    """
    check_task(image_shape, num_classes)
    before, height, width = image_shape
    size = (height, width)
    layers: list[nn.Module] = []
    for after in (6, 16):
        padding = (0 if size[0] >= KERNEL else HALF, 0 if size[1] >= KERNEL else HALF)
        stage, size = _pooled_conv(before, after, KERNEL, padding, size)
        layers += stage
        before = after
    layers += [nn.Flatten(), *_dense([before * math.prod(size), 120, 84])]
    return two_parts(layers, 84, num_classes)


def cnn(
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    channels: Sequence[Annotated[int, ">= 1"]] = (32, 64),
    hidden: Annotated[int, ">= 1"] = 512,
) -> nn.Module:
    """Build the FedAvg CNN: padded 5x5 convolutions, each ReLU and 2x2 max-pool, one hidden layer.

    Args:
        image_shape: (channels, height, width) in pixels, each >= 1.
        num_classes: C >= 1.
        channels: output channels of each convolution, one or more, each >= 1.
        hidden: units of the hidden layer, >= 1.

    Returns:
        Network from images [B, channels, height, width] to logits [B, num_classes];
        1,663,370 parameters for 1x28x28 and 10 classes.

    Reference: McMahan et al. 2017, section 3 (arXiv:1602.05629).
    """
    check_task(image_shape, num_classes)
    check_widths("channels", channels)
    check_int("hidden", hidden)
    before, height, width = image_shape
    size = (height, width)
    layers: list[nn.Module] = []
    for after in channels:
        stage, size = _pooled_conv(before, after, KERNEL, (HALF, HALF), size)
        layers += stage
        before = after
    layers += [nn.Flatten(), *_dense([before * math.prod(size), hidden])]
    return two_parts(layers, hidden, num_classes)


def vgg9(
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    channels: Sequence[int] = (32, 64, 128, 128, 256, 256),
    hidden: Sequence[int] = (512, 512),
) -> nn.Module:
    """Build VGG-9: six padded 3x3 convolutions, a 2x2 max-pool after every second, three linear.

    The dropout of FedMA's code is left out: its masks would add a random stream to local training.

    Args:
        image_shape: (channels, height, width) in pixels, each >= 1.
        num_classes: C >= 1.
        channels: output channels of the six convolutions, each >= 1.
        hidden: units of the two hidden layers, each >= 1.

    Returns:
        Network from images [B, channels, height, width] to logits [B, num_classes];
        3,491,530 parameters for 3x32x32 and 10 classes.

    Reference: Simonyan & Zisserman 2015 (arXiv:1409.1556); widths of Wang et al. 2020, FedMA
    (arXiv:2002.06440), as in NIID-Bench (arXiv:2102.02079).
    """
    check_task(image_shape, num_classes)
    check_widths("channels", channels, length=6)
    check_widths("hidden", hidden, length=2)
    before, height, width = image_shape
    size = (height, width)
    layers: list[nn.Module] = []
    for middle, after in zip(channels[::2], channels[1::2], strict=True):
        stage, size = _pooled_conv(middle, after, 3, (1, 1), size)
        layers += [nn.Conv2d(before, middle, 3, padding=1), nn.ReLU(), *stage]
        before = after
    layers += [nn.Flatten(), *_dense([before * math.prod(size), *hidden])]
    return he_init(two_parts(layers, hidden[-1], num_classes))
