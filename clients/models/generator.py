"""Generators: from noise to inputs of a task, for whoever distils without data."""

import math
from typing import Annotated

from torch import nn

from clients.models.layers import check_int, check_task

SLOPE = 0.2
"""Of the leaky ReLU behind each normalisation, as in DCGAN."""


def image_generator(
    image_shape: tuple[int, int, int], noise_size: int, *, width: Annotated[int, ">= 1"] = 64
) -> nn.Module:
    """Build DENSE's generator: a linear layer to a small map, twice enlarged and convolved.

    Args:
        image_shape: (channels, height, width) in pixels, each >= 1.
        noise_size: Z >= 1.
        width: channels of the last hidden map, >= 1; those before it have twice as many.

    Returns:
        Network from noise [B, Z] to network inputs [B, *image_shape], of which each channel has
        mean 0 and variance 1 over a batch in train mode, as standardised images have.

    Reference: Zhang et al. 2022, DENSE (arXiv:2112.12371), its code; Radford et al. 2016 (DCGAN).
    """
    check_task(image_shape, 1)
    check_int("noise_size", noise_size)
    check_int("width", width)
    channels, *size = image_shape
    small, half = ([math.ceil(pixels / parts) for pixels in size] for parts in (4, 2))
    return nn.Sequential(
        nn.Linear(noise_size, 2 * width * math.prod(small)),
        nn.Unflatten(1, (2 * width, *small)),
        nn.BatchNorm2d(2 * width),
        *_enlarged(2 * width, 2 * width, half),
        *_enlarged(2 * width, width, size),
        nn.Conv2d(width, channels, 3, padding=1),
        nn.BatchNorm2d(channels, affine=False),
    )


def _enlarged(before: int, after: int, size: list[int]) -> list[nn.Module]:
    """Make what enlarges a map to a size, and convolves it."""
    conv = nn.Conv2d(before, after, 3, padding=1)
    grown = nn.Upsample(size=tuple(size))
    return [grown, conv, nn.BatchNorm2d(after), nn.LeakyReLU(SLOPE)]
