"""Networks that answer each pixel: fully convolutional, for dense labelling."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated

from torch import Tensor, nn

from clients.models.layers import check_int, check_task, check_widths, he_init


class _OfPixels(nn.Module):
    """A linear classifier of each pixel; a `Linear`, so that its input is a tap like any other."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, num_classes)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, D, H, W] -> [B, C, H, W]."""
        logits: Tensor = self.linear(maps.movedim(1, -1)).movedim(-1, 1)
        return logits


def fcn(
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    channels: Sequence[Annotated[int, ">= 1"]] = (16, 16, 16),
    dilation: Annotated[int, ">= 1"] = 2,
) -> nn.Module:
    """Build a fully convolutional network of 3x3 convolutions that keep the size of the image.

    Each convolution but the first is dilated `dilation` times as far as the one before, so that a
    pixel of the last sees 1 + 2 * (1 + dilation + dilation**2 + ...) pixels of the image, 15 by
    default, without a pixel being averaged away.

    Args:
        image_shape: (channels, height, width) in pixels, each >= 1.
        num_classes: C >= 1.
        channels: maps of each convolution, one or more, each >= 1.
        dilation: >= 1.

    Returns:
        Network from images [B, channels, height, width] to logits [B, num_classes, height, width].

    Reference: Long, Shelhamer, Darrell 2015 (arXiv:1411.4038); dilation: Yu & Koltun 2016
    (arXiv:1511.07122).
    """
    check_task(image_shape, num_classes)
    check_widths("channels", channels)
    check_int("dilation", dilation)
    layers: list[nn.Module] = []
    before, apart = image_shape[0], 1
    for after in channels:
        layers += [nn.Conv2d(before, after, 3, padding=apart, dilation=apart), nn.ReLU()]
        before, apart = after, apart * dilation
    classifier = _OfPixels(channels[-1], num_classes)
    parts = OrderedDict[str, nn.Module](features=nn.Sequential(*layers), classifier=classifier)
    return he_init(nn.Sequential(parts))
