"""Networks made for phones, with the strides of the stem taken out for small images."""

import math

import torch
from torch import Tensor, nn

from clients.models.layers import (
    Norm,
    Residual,
    Size,
    check_task,
    conv_norm,
    fit_strides,
    he_init,
    two_parts,
)

# Table 2 of the paper: expansion, channels, repeats, stride of the first block. The paper has
# stride 2 in the stem and in the second row too; a 32x32 image would end as one pixel.
MOBILENET_V2_ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
MOBILENET_V2_STEM = 32
MOBILENET_V2_LAST = 1280

# Table 5 of the paper, column 0.5x: channels and repeats of the three stages.
SHUFFLENET_V2_STAGES = ((48, 4), (96, 8), (192, 4))
SHUFFLENET_V2_STEM = 24
SHUFFLENET_V2_LAST = 1024


def _scale(channels: int, width: float) -> int:
    """Scale channels to the nearest multiple of 8, at least 8 and never below 90 % of exact."""
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def _inverted_residual(
    in_channels: int, out_channels: int, stride: Size, expansion: int, norm: Norm
) -> nn.Module:
    """Make 1x1 expansion, 3x3 depthwise and linear 1x1, with a shortcut if the shape is kept."""
    inner = in_channels * expansion
    layers: list[nn.Module] = []
    if expansion > 1:
        layers += [*conv_norm(in_channels, inner, 1, norm), nn.ReLU6()]
    layers += [*conv_norm(inner, inner, 3, norm, stride=stride, groups=inner), nn.ReLU6()]
    layers += conv_norm(inner, out_channels, 1, norm)
    body = nn.Sequential(*layers)
    keeps_shape = in_channels == out_channels and stride == (1, 1)
    return Residual(body, nn.Identity()) if keeps_shape else body


def mobilenet_v2_small(
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    width: float = 0.25,
    norm: Norm = "batch",
) -> nn.Module:
    """Build MobileNetV2 at reduced width, with stride 1 in the stem.

    Args:
        image_shape: (channels, height, width) in pixels, each >= 1.
        num_classes: C >= 1.
        width: multiplier of all channels but the last 1280, in (0, inf); above 1 of those too.
        norm: "batch" or "group".

    Returns:
        Network from images [B, channels, height, width] to logits [B, num_classes];
        3,504,872 parameters for 3 channels, 1000 classes and width 1.

    Raises:
        ValueError: if a number is out of its range.

    Reference: Sandler et al. 2018 (arXiv:1801.04381).
    """
    check_task(image_shape, num_classes)
    if not isinstance(width, int | float) or not 0 < width < math.inf:
        raise ValueError(f"width must be a number in (0, inf), got {width!r}")
    wanted = [s if i == 0 else 1 for _, _, n, s in MOBILENET_V2_ROWS for i in range(n)]
    plan = [(t, _scale(c, width)) for t, c, n, _ in MOBILENET_V2_ROWS for _ in range(n)]
    before = _scale(MOBILENET_V2_STEM, width)
    layers: list[nn.Module] = [*conv_norm(image_shape[0], before, 3, norm), nn.ReLU6()]
    strides = fit_strides(image_shape[1:], wanted)
    for (expansion, after), stride in zip(plan, strides, strict=True):
        layers.append(_inverted_residual(before, after, stride, expansion, norm))
        before = after
    last = _scale(MOBILENET_V2_LAST, max(1.0, width))
    layers += [*conv_norm(before, last, 1, norm), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return he_init(two_parts(layers, last, num_classes))


class ShuffleUnit(nn.Module):
    """Two branches side by side, their channels interleaved: [B, C, H, W] -> [B, D, H', W']."""

    def __init__(self, left: nn.Module, right: nn.Module, *, split: bool) -> None:
        super().__init__()
        self.left = left
        self.right = right
        self.split = split

    def forward(self, x: Tensor) -> Tensor:
        """Give each branch its half of the channels, or both the whole map [B, C, H, W]."""
        first, second = x.chunk(2, dim=1) if self.split else (x, x)
        joined = torch.cat((self.left(first), self.right(second)), dim=1)
        batch, channels, height, width = joined.shape
        pairs = joined.reshape(batch, 2, channels // 2, height, width).transpose(1, 2)
        return pairs.reshape(batch, channels, height, width)


def _shuffle_branch(in_channels: int, channels: int, stride: Size, norm: Norm) -> nn.Sequential:
    """Make 1x1, 3x3 depthwise and 1x1 convolutions; the depthwise one has no ReLU."""
    return nn.Sequential(
        *conv_norm(in_channels, channels, 1, norm),
        nn.ReLU(),
        *conv_norm(channels, channels, 3, norm, stride=stride, groups=channels),
        *conv_norm(channels, channels, 1, norm),
        nn.ReLU(),
    )


def _shuffle_stage(
    in_channels: int, out_channels: int, repeats: int, stride: Size, norm: Norm
) -> list[nn.Module]:
    """Make one unit that changes the shape and the units that keep it."""
    half = out_channels // 2
    shortcut = nn.Sequential(
        *conv_norm(in_channels, in_channels, 3, norm, stride=stride, groups=in_channels),
        *conv_norm(in_channels, half, 1, norm),
        nn.ReLU(),
    )
    first = ShuffleUnit(shortcut, _shuffle_branch(in_channels, half, stride, norm), split=False)
    rest = (
        ShuffleUnit(nn.Identity(), _shuffle_branch(half, half, (1, 1), norm), split=True)
        for _ in range(repeats - 1)
    )
    return [first, *rest]


def shufflenet_v2_05(
    image_shape: tuple[int, int, int], num_classes: int, *, norm: Norm = "batch"
) -> nn.Module:
    """Build ShuffleNetV2 x0.5, with stride 1 and no max-pooling in the stem.

    Args:
        image_shape: (channels, height, width) in pixels, each >= 1.
        num_classes: C >= 1.
        norm: "batch" or "group".

    Returns:
        Network from images [B, channels, height, width] to logits [B, num_classes];
        1,366,792 parameters for 3 channels and 1000 classes.

    Reference: Ma et al. 2018, table 5 (arXiv:1807.11164).
    """
    check_task(image_shape, num_classes)
    before = SHUFFLENET_V2_STEM
    layers: list[nn.Module] = [*conv_norm(image_shape[0], before, 3, norm), nn.ReLU()]
    strides = fit_strides(image_shape[1:], [2] * len(SHUFFLENET_V2_STAGES))
    for (after, repeats), stride in zip(SHUFFLENET_V2_STAGES, strides, strict=True):
        layers += _shuffle_stage(before, after, repeats, stride, norm)
        before = after
    last = SHUFFLENET_V2_LAST
    layers += [*conv_norm(before, last, 1, norm), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return he_init(two_parts(layers, last, num_classes))
