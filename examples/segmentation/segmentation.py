"""A segmentation federation: a class for each pixel, by networks of one's own.

Data of one's own are a function that returns two data sets; what is to be predicted is their task.
These are made: two real digits on a canvas, of which each pixel of ink is to be named.
"""

import numpy as np
import torch
from torch import nn

from clients.data import Dataset, dense_labelling, digits

SIDE, INK = 20, 4


def scenes(num_examples=600, digits_each=2, classes=4, seed=0):
    """Draw scenes of digits below `classes`; those of the test set are none of the train set's."""
    rng = np.random.default_rng(seed)
    return tuple(
        _drawn(each, size, digits_each, classes, rng)
        for each, size in zip(digits(), (num_examples, num_examples // 4), strict=True)
    )


def _drawn(source, size, digits_each, classes, rng):
    inputs = np.zeros((size, 1, SIDE, SIDE), np.uint8)
    labels = np.zeros((size, SIDE, SIDE), np.int64)  # 0 = nothing, c + 1 = ink of the digit c
    choice = np.flatnonzero(source.labels < classes)
    for example in range(size):
        for which in rng.choice(choice, digits_each):
            top, left = rng.integers(0, SIDE - 8 + 1, 2)
            window = (slice(top, top + 8), slice(left, left + 8))
            digit = source.inputs[which, 0]
            inputs[example, 0][window] = np.maximum(inputs[example, 0][window], digit)
            labels[example][window][digit >= INK] = source.labels[which] + 1
    task = dense_labelling((1, SIDE, SIDE), classes + 1)
    return Dataset("scenes", inputs, labels, task, scale=1 / 16, mean=(0.15,), std=(0.3,))


class Hourglass(nn.Module):
    """A network of the user's own, [B, 1, H, W] -> [B, C, H, W]: half the size and back again."""

    def __init__(self, image_shape, num_classes, width=16):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(image_shape[0], width, 3, padding=1), nn.ReLU())
        self.low = nn.Sequential(
            nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 5, padding=2), nn.ReLU(),
            nn.Conv2d(2 * width, width, 5, padding=2), nn.ReLU(), nn.Upsample(scale_factor=2),
        )  # fmt: skip
        self.classifier = nn.Linear(2 * width, num_classes)

    def forward(self, images):
        high = self.down(images)
        maps = torch.cat([high, self.low(high)], 1)
        return self.classifier(maps.movedim(1, -1)).movedim(-1, 1)
