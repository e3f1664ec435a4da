"""What a group of peers learns in common, beside the peers: fusion, gates, attention, projection.

A head is built from the shapes of the peers' tapped features, pooled to one size, and is taught by
a rule of `clients.mutual.rules`. Peers may differ in the number of their channels.
"""

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

Shape = tuple[int, int, int]
HeadFunction = Callable[[Sequence[Shape], int], nn.Module]
"""(channels, height and width of each peer's features, classes) -> the head."""


class Fusion(nn.Module):
    """The fusion module of FFL: a classifier over the feature maps of all peers.

    Concatenation, 3x3 depthwise convolution, 1x1 convolution, each with batch norm and ReLU, global
    average pooling, linear layer. For two peers with C channels it is the paper's; unequal channels
    are ours.

    Reference: Kim, Hyun, Chung, Kwak, "Feature Fusion for Online Mutual Knowledge Distillation",
    ICPR 2020 (arXiv:1904.09058), and its code.
    """

    def __init__(
        self,
        shapes: Sequence[Shape],
        num_classes: int,
        *,
        channels: Annotated[int, ">= 1"] | None = None,
    ) -> None:
        """Build it, convolutions drawn as He et al. 2015 do.

        Args:
            shapes: (channels, height, width) of each peer's maps; heights and widths are equal.
            num_classes: C >= 2.
            channels: What the 1x1 convolution leaves, >= 1; None = the mean of the peers' channels.
        """
        super().__init__()
        wide = sum(shape[0] for shape in shapes)
        narrow = max(1, round(wide / len(shapes))) if channels is None else channels
        self.depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False)
        self.norm = nn.BatchNorm2d(wide)
        self.pointwise = nn.Conv2d(wide, narrow, 1, bias=False)
        self.narrow_norm = nn.BatchNorm2d(narrow)
        self.classifier = nn.Linear(narrow, num_classes)
        for convolution in (self.depthwise, self.pointwise):
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Classify by the maps of all peers.

        Args:
            features: [B, D_k, H, W] of each peer.

        Returns:
            Logits [B, C].
        """
        maps = torch.relu(self.norm(self.depthwise(torch.cat(list(features), dim=1))))
        maps = torch.relu(self.narrow_norm(self.pointwise(maps)))
        logits: Tensor = self.classifier(maps.mean((2, 3)))
        return logits


class Gate(nn.Module):
    """The gate of ONE: how much each peer counts for each example.

    Global average pooling, linear layer to K, batch norm, ReLU, softmax. In the paper it sees the
    branches' common trunk; peers without one are seen by all their features together, which is
    ours.

    Reference: Lan, Zhu, Gong, "Knowledge Distillation by On-the-Fly Native Ensemble", NeurIPS 2018
    (arXiv:1806.04606), and its code.
    """

    def __init__(self, shapes: Sequence[Shape], num_classes: int) -> None:
        """Build it.

        Args:
            shapes: (channels, height, width) of each peer's maps.
            num_classes: Not used: gates are per peer.
        """
        super().__init__()
        self.linear = nn.Linear(sum(shape[0] for shape in shapes), len(shapes))
        self.norm = nn.BatchNorm1d(len(shapes))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Weigh the peers.

        Args:
            features: [B, D_k, H, W] of each peer.

        Returns:
            [B, K], rows on the simplex.
        """
        pooled = torch.cat([maps.mean((2, 3)) for maps in features], dim=1)
        return torch.relu(self.norm(self.linear(pooled))).softmax(-1)


class Attention(nn.Module):
    """The attention of OKDDip: how much each auxiliary peer looks at each other one.

    Softmax over b of the product of a's query and b's key, both linear in the pooled features. The
    last peer, the leader, takes no part.

    Reference: Chen, Mei, Wang, Feng, Chen, "Online Knowledge Distillation with Diverse Peers",
    AAAI 2020; projections per peer, for unequal channels, are ours.
    """

    def __init__(
        self, shapes: Sequence[Shape], num_classes: int, *, width: Annotated[int, ">= 1"] = 8
    ) -> None:
        """Build it.

        Args:
            shapes: (channels, height, width) of each peer's maps, the leader's last.
            num_classes: Not used.
            width: Of queries and keys, >= 1.
        """
        super().__init__()
        if len(shapes) < 2:
            raise ValueError(f"attention over {len(shapes)} peer: expected 2 or more")
        self.queries = nn.ModuleList(nn.Linear(shape[0], width) for shape in shapes[:-1])
        self.keys = nn.ModuleList(nn.Linear(shape[0], width) for shape in shapes[:-1])

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Say who looks at whom.

        Args:
            features: [B, D_k, H, W] of each peer, the leader's last.

        Returns:
            [B, K-1, K-1], rows (who looks) on the simplex.
        """
        pooled = [maps.mean((2, 3)) for maps in features[:-1]]
        query = torch.stack([part(x) for part, x in zip(self.queries, pooled, strict=True)], 1)
        key = torch.stack([part(x) for part, x in zip(self.keys, pooled, strict=True)], 1)
        return (query @ key.transpose(1, 2)).softmax(-1)


class Projection(nn.Module):
    """FedKD's W: from the features of the mentee, the last peer, to those of the mentor, the first.

    Reference: Wu et al., "Communication-efficient federated learning via knowledge distillation",
    Nature Communications 13 (2022).
    """

    def __init__(self, shapes: Sequence[Shape], num_classes: int) -> None:
        """Build it.

        Args:
            shapes: (channels, height, width) of both peers' maps.
            num_classes: Not used.
        """
        super().__init__()
        self.linear = nn.Linear(shapes[-1][0], shapes[0][0], bias=False)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Compare what both see: squared difference, mean over batch and features, a scalar."""
        mentor, mentee = features[0].mean((2, 3)), features[-1].mean((2, 3))
        return functional.mse_loss(self.linear(mentee), mentor)
