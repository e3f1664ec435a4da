"""Batches of several clients that are not equally long, and the norm that leaves padding out."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass
class Filling:
    """How far each client's share of a batch is filled with examples; the rest is padding.

    Attributes:
        counts: Examples of each client [G], from 0 (the client has no more steps) to B.
        mask: Which rows are examples [G, B], bool; None if all are.
        refused: Clients [G] whose batch gave batch norm a single value per channel, noted by the
            layers. Alone, torch refuses such a client.
    """

    counts: npt.NDArray[np.int64]
    mask: Tensor | None
    refused: npt.NDArray[np.bool_]


def full(members: int, rows: int) -> Filling:
    """Describe a batch without padding: `rows` examples for each of `members` clients."""
    counts = np.full(members, rows, dtype=np.int64)
    return Filling(counts, None, np.zeros(members, dtype=np.bool_))


class Current:
    """The batch in hand: written before each forward pass, read by the layers in it."""

    filling: Filling


class MaskedBatchNorm(nn.Module):
    """Batch norm whose statistics leave padding out.

    Of G clients together ([B, G*C, H, W], wide), or of one among them under `torch.vmap`
    ([B, C, ...]). Without padding it is torch's own.
    """

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm, current: Current, wide: bool) -> None:
        super().__init__()
        self.weight = norm.weight
        self.bias = norm.bias
        self.running_mean: Tensor | None
        self.running_var: Tensor | None
        self.num_batches_tracked: Tensor | None
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.momentum = norm.momentum
        self.eps = norm.eps
        self.current = current
        self.wide = wide

    def forward(self, x: Tensor) -> Tensor:
        """Normalise by the batch's statistics in train mode, else by the running ones."""
        tensors = (self.running_mean, self.running_var, self.weight, self.bias)
        mean, var, weight, bias = (None if t is None else t.flatten() for t in tensors)
        if not self.training and mean is not None:
            return functional.batch_norm(x, mean, var, weight, bias, eps=self.eps)
        filling = self.current.filling
        filling.refused |= filling.counts * x[0, 0].numel() == 1
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1 if filling.mask is None else filling.mask.any(-1))
        if filling.mask is None and self.momentum is not None and not filling.refused.any():
            return functional.batch_norm(x, mean, var, weight, bias, True, self.momentum, self.eps)
        kind = x.dtype
        x = x.float() if kind.itemsize < 4 else x  # as torch does; half precision counts to 256
        mask = x.new_ones(x.shape[:2]) if filling.mask is None else self._per_channel(x)
        rate = self.momentum if self.momentum is not None else self._cumulative(x)
        return _masked_batch_norm(x, mask, mean, var, weight, bias, rate, self.eps).to(kind)

    def _per_channel(self, x: Tensor) -> Tensor:
        """Spread the mask over channels: [B, G*C], or [B, 1] of one client."""
        mask = self.current.filling.mask
        assert mask is not None, "no padding"
        if not self.wide:
            return mask[:, None].to(x.dtype)
        return mask.t().repeat_interleave(x.shape[1] // len(mask), dim=1).to(x.dtype)

    def _cumulative(self, x: Tensor) -> float | Tensor:
        """Weight of the newest batch where all batches are to weigh alike."""
        tracked = self.num_batches_tracked
        if tracked is None:
            return 0.0
        rate = 1 / tracked.to(x.dtype).clamp(min=1)
        return rate.repeat_interleave(x.shape[1] // len(rate)) if self.wide else rate


def _masked_batch_norm(
    x: Tensor,
    mask: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    rate: float | Tensor,
    eps: float,
) -> Tensor:
    """Normalise [B, C, ...] by the rows in mask [B, C] or [B, 1]; move the running statistics."""
    shape = (-1,) + (1,) * (x.dim() - 2)
    dims = [0, *range(2, x.dim())]
    rows = torch.unflatten(mask, 1, shape)
    count = mask.sum(0) * x[0, 0].numel()
    mean = (x * rows).sum(dims) / count.clamp(min=1)
    centred = x - torch.unflatten(mean, 0, shape)
    var = (centred.square() * rows).sum(dims) / count.clamp(min=1)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            moved = (count > 0).to(x.dtype) * rate
            # Not lerp_: vmap would fall back to a loop.
            running_mean.add_((mean - running_mean) * moved)
            running_var.add_((var * count / (count - 1).clamp(min=1) - running_var) * moved)
    scale = (var + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    normalised = centred * torch.unflatten(scale, 0, shape)
    return normalised if bias is None else normalised + torch.unflatten(bias, 0, shape)
