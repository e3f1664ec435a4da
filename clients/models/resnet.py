"""Residual networks for small images (CIFAR stem: 3x3, stride 1, no pooling)."""

from collections.abc import Sequence
from typing import Annotated

from torch import nn

from clients.models.layers import (
    Norm,
    Residual,
    Size,
    check_int,
    check_task,
    conv_norm,
    fit_strides,
    he_init,
    two_parts,
)


def _basic_block(in_channels: int, out_channels: int, stride: Size, norm: Norm) -> nn.Sequential:
    """Make two 3x3 convolutions with a shortcut around them, then ReLU."""
    body = nn.Sequential(
        *conv_norm(in_channels, out_channels, 3, norm, stride=stride),
        nn.ReLU(),
        *conv_norm(out_channels, out_channels, 3, norm),
    )
    # Option B: a 1x1 projection where the shape changes, 2,752 parameters in the 16-32-64 nets.
    # Option A (zero padding) would give ResNet-20 its other known size, 269,722.
    # The channels double wherever the stride may be 2, so they alone decide.
    project = nn.Sequential(*conv_norm(in_channels, out_channels, 1, norm, stride=stride))
    shortcut = project if in_channels != out_channels else nn.Identity()
    return nn.Sequential(Residual(body, shortcut), nn.ReLU())


def _resnet(
    image_shape: tuple[int, int, int],
    num_classes: int,
    widths: Sequence[int],
    blocks: int,
    norm: Norm,
) -> nn.Sequential:
    """Build a stem and one stage of basic blocks per width, the map halved between stages."""
    channels, height, width = image_shape
    wanted = [1] + [2] * (len(widths) - 1)
    layers: list[nn.Module] = [*conv_norm(channels, widths[0], 3, norm), nn.ReLU()]
    before = widths[0]
    for after, stride in zip(widths, fit_strides((height, width), wanted), strict=True):
        layers.append(_basic_block(before, after, stride, norm))
        layers += [_basic_block(after, after, (1, 1), norm) for _ in range(blocks - 1)]
        before = after
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return he_init(two_parts(layers, before, num_classes))


def resnet8(
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    width: int = 16,
    norm: Norm = "batch",
) -> nn.Module:
    """Build ResNet-8: three stages of one block, depth 6 * 1 + 2.

    Args:
        image_shape: (channels, height, width) in pixels, each >= 1.
        num_classes: C >= 1.
        width: channels of the first stage, >= 1; they double twice.
        norm: "batch" or "group".

    Returns:
        Network from images [B, channels, height, width] to logits [B, num_classes];
        78,042 parameters for 3 channels and 10 classes, 83,892 for 100 classes.

    Reference: He et al. 2016, section 4.2 (arXiv:1512.03385).
    """
    return cifar_resnet(image_shape, num_classes, depth=8, width=width, norm=norm)


def resnet20(
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    width: int = 16,
    norm: Norm = "batch",
) -> nn.Module:
    """Build ResNet-20: three stages of three blocks, depth 6 * 3 + 2.

    Args:
        image_shape: (channels, height, width) in pixels, each >= 1.
        num_classes: C >= 1.
        width: channels of the first stage, >= 1; they double twice.
        norm: "batch" or "group".

    Returns:
        Network from images [B, channels, height, width] to logits [B, num_classes];
        272,474 parameters for 3 channels and 10 classes, 278,324 for 100 classes.

    Reference: He et al. 2016, section 4.2 (arXiv:1512.03385).
    """
    return cifar_resnet(image_shape, num_classes, depth=20, width=width, norm=norm)


def cifar_resnet(
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    depth: Annotated[int, ">= 8, 6 n + 2"] = 32,
    width: int = 16,
    norm: Norm = "batch",
) -> nn.Module:
    """Build the ResNet for CIFAR of any depth: three stages of n blocks, depth 6 n + 2.

    Args:
        image_shape: (channels, height, width) in pixels, each >= 1.
        num_classes: C >= 1.
        depth: 8, 14, 20, 26, 32, ...; published are 20, 32, 44, 56 and 110.
        width: channels of the first stage, >= 1; they double twice.
        norm: "batch" or "group".

    Returns:
        Network from images [B, channels, height, width] to logits [B, num_classes]; for 3 channels
        and 10 classes 466,906 parameters with depth 32, 855,770 with depth 56.

    Raises:
        ValueError: A number is out of range.

    Reference: He et al. 2016, section 4.2 (arXiv:1512.03385).
    """
    check_task(image_shape, num_classes)
    check_int("width", width)
    if not isinstance(depth, int) or depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth={depth}: expected 6 n + 2, such as 20, 32 or 56")
    widths = [width, 2 * width, 4 * width]
    return _resnet(image_shape, num_classes, widths, (depth - 2) // 6, norm)


def resnet18(
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    width: int = 64,
    norm: Norm = "batch",
) -> nn.Module:
    """Build ResNet-18 with the CIFAR stem: four stages of two blocks.

    Args:
        image_shape: (channels, height, width) in pixels, each >= 1.
        num_classes: C >= 1.
        width: channels of the first stage, >= 1; they double three times.
        norm: "batch" or "group".

    Returns:
        Network from images [B, channels, height, width] to logits [B, num_classes];
        11,173,962 parameters for 3 channels and 10 classes.

    Reference: He et al. 2016, table 1 (arXiv:1512.03385).
    """
    check_task(image_shape, num_classes)
    check_int("width", width)
    return _resnet(image_shape, num_classes, [width * 2**stage for stage in range(4)], 2, norm)
