"""ICKD: a student's channels are to relate to one another as its teachers' do, on shared inputs.

Liu et al., "Exploring Inter-Channel Correlation for Diversity-preserved Knowledge Distillation",
ICCV 2021. A client sends, beside logits, the correlations of its channels for each input [C, C]:
their size does not depend on that of the maps. The mean over teachers, by the weights of the
ensemble, is ours: the paper has one teacher.

    python run.py --config-dir examples/ickd strategy=ickd clients=same_channels student=hinted
"""

from functools import partial

from torch import nn
from torch.nn.functional import normalize

from clients.messages.field import Field
from clients.training.losses import kl
from clients.training.objective import Objective


def correlations(maps):
    """Return how channels of maps [B, C, H, W] go together [B, C, C], each row of length 1."""
    rows = maps.flatten(2)
    return normalize(rows @ rows.mT, dim=2)


def correlation_field(tap, channels, codec="float32"):
    """Make what clients are asked for: correlations at a place of their networks."""
    said, shape = partial(said_correlations, tap=tap), ("N", channels, channels)
    return Field(said, shape, codec=codec, fault=too_long, taps=(tap,), tested=False)


def said_correlations(asked, *, tap):
    """Say them of the inputs asked about [N, C, C]."""
    return correlations(asked.features(tap))


def too_long(array):
    """Refuse numbers that rows of length 1 cannot have: one client would drown the others."""
    return None if abs(array).max() <= 1.01 else "goes beyond 1"


def ickd(tap, weight, kl_weight):
    """Make the student's objective; `tap` is where its maps have the teachers' channels."""
    loss = partial(ickd_loss, tap=tap, weight=weight, kl_weight=kl_weight)
    return Objective(loss, taps=(tap,), anchors=("correlations", "weights"))


def ickd_loss(outputs, targets, anchors, *, temperature, tap, weight, kl_weight):
    """Return kl_weight * KL + weight * sum_k w_k |G - G_k|^2 / C for each example [B]."""
    own = correlations(outputs.features(tap))
    gaps = own - anchors["correlations"][:, outputs.rows]  # [K, B, C, C]
    of_teachers = gaps.square().sum((-1, -2)) / own.shape[-1]
    distance = (anchors["weights"][:, outputs.rows] * of_teachers).sum(0)
    return kl_weight * kl(outputs.logits, targets, temperature) + weight * distance


class Hinted(nn.Module):
    """A small network whose maps are brought to so many channels by a 1x1 convolution, `hint`."""

    def __init__(self, image_shape, num_classes, width, channels):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(image_shape[0], width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.hint = nn.Sequential(
            nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels)
        )
        size = width * (image_shape[1] // 2) * (image_shape[2] // 2)
        self.classifier = nn.Linear(size, num_classes)

    def forward(self, images):
        maps = self.trunk(images)
        self.hint(maps)  # for who listens there; nothing else comes of it
        return self.classifier(maps.flatten(1))


def hinted(image_shape, num_classes, width=8, channels=16):
    """Build the student."""
    return Hinted(image_shape, num_classes, width, channels)
