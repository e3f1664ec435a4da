"""G networks of one architecture as one: stacked parameters and a batched forward pass."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call

from clients.execution.grouped_layers import (
    WideLinear,
    arranged,
    by_client,
    starts_flat,
    widened,
)
from clients.execution.isolation import Original, foreign
from clients.execution.masking import Current, Filling, MaskedBatchNorm, full
from clients.models.factory import Parameters, unlike
from clients.training.taps import Taps

Way = Literal["wide", "vmap"]
"""How a stack runs: layers made for many clients (`grouped_layers`), or `torch.vmap` over one."""

Tensors = dict[str, Tensor]


class Stack:
    """Parameters and buffers of G networks of one architecture, and how to run them at once.

    It outlives its use: load the next clients into it. Whatever trains or answers reads nothing but
    what was loaded.
    """

    def __init__(self, model: nn.Module, size: int, way: Way, axes: int = 3) -> None:
        """Make room for `size` networks.

        Args:
            model: One network of the architecture, on the device where the stack is to live. It is
                not changed and not kept; all its tensors have names of their own, see
                `clients.execution.policy.way_of`.
            size: G >= 1.
            way: How to run them.
            axes: Of an input: 3 of an image, 1 of a row of a table or of token ids.

        Raises:
            ValueError: G is below 1, or the architecture cannot be widened.
        """
        if size < 1:
            raise ValueError(f"size={size}: expected >= 1")
        self.size = size
        self.way = way
        self.axes = axes
        self.flat = axes == 1 or starts_flat(model)
        self.device = next(model.parameters()).device
        self.current = Current()
        self.trainable = [n for n, p in model.named_parameters() if p.requires_grad]
        self.tensors: Tensors = {n: _stacked(t, size, way) for n, t in model.state_dict().items()}
        copy = widened(model, self.current) if way == "wide" else masked(model, self.current)
        # Without tensors of its own: what is not given at a call would be missed, not made up.
        self.network = copy.to("meta")
        self._original = Original(self.network) if foreign(model) else None
        self.reference = deepcopy(model).to("meta")

    def put_back(self) -> None:
        """Undo what the networks before did to anything but their tensors."""
        if self._original is not None:
            self._original.put_back()

    def exchanged(self) -> bool:
        """Tell whether the stacked network exchanged modules as it ran."""
        return self._original is not None and self._original.exchanged() is not None

    def load(self, member: int, parameters: Mapping[str, Tensor]) -> None:
        """Copy one network's tensors to one place.

        Args:
            member: Which place, 0..G-1.
            parameters: All that is in its state dict.

        Raises:
            ValueError: Names or shapes are those of another architecture.
        """
        self._check(parameters)
        for name, tensor in self.tensors.items():
            tensor[member].copy_(parameters[name])

    def load_all(self, parameters: Mapping[str, Tensor]) -> None:
        """Copy one network's tensors to every place: all clients start from the same.

        Args:
            parameters: All that is in its state dict.

        Raises:
            ValueError: Names or shapes are those of another architecture.
        """
        self._check(parameters)
        for name, tensor in self.tensors.items():
            tensor.copy_(parameters[name])

    def parameters_of(self, member: int) -> Parameters:
        """Copy one network's tensors into arrays, as `models.factory.parameters_of` does."""
        # A fresh C-ordered array, whatever the order of the convolutions' weights.
        return {n: t[member].cpu().numpy().copy() for n, t in self.tensors.items()}

    def finite(self, members: int) -> npt.NDArray[np.bool_]:
        """Tell of the first few networks whether all their trained parameters are finite."""
        # The sum is finite only if its terms are, and needs no temporary as large as they are.
        trained = [self.tensors[name][:members].flatten(1) for name in self.trainable]
        good = torch.stack([each.sum(1).isfinite() for each in trained]).all(0).cpu().numpy()
        for i in np.flatnonzero(~good):  # or large enough to overflow the sum
            good[i] = all(bool(each[i].isfinite().all()) for each in trained)
        found: npt.NDArray[np.bool_] = good
        return found

    def first(self, members: int) -> Tensors:
        """Return the tensors of the first few networks [members, ...], on the same memory.

        Those to be trained are leaves that require gradients.
        """
        few = {name: tensor[:members] for name, tensor in self.tensors.items()}
        return few | {n: few[n].detach().requires_grad_() for n in self.trainable}

    def taps(self, names: Sequence[str]) -> Taps:
        """Prepare to read features at places of the stacked network; see `Taps`."""
        return Taps(self.network, names, WideLinear if self.way == "wide" else nn.Linear)

    def outputs(
        self, tensors: Tensors, images: Tensor, filling: Filling, taps: Taps, train: bool = True
    ) -> tuple[Tensor, Tensors]:
        """Run the networks of some tensors; in train mode running statistics move.

        Args:
            tensors: As `first` gives them, of G networks.
            images: [G, B, *input_shape].
            filling: Which of them count.
            taps: Of `taps`, listening.
            train: Whether in train mode.

        Returns:
            Logits [G, B, classes] and features [G, B, ...] by place.
        """
        self.network.train(train)
        return self._run(tensors, images, filling, taps)

    def answer(self, members: int, images: Tensor) -> Tensor:
        """Run the first few networks in eval mode and without gradients.

        Args:
            members: How many.
            images: [B, *input_shape] shared by all, or [members, B, *input_shape].

        Returns:
            Logits [members, B, classes].
        """
        self.network.eval()
        few = {name: tensor[:members] for name, tensor in self.tensors.items()}
        with torch.no_grad():
            filling = full(members, images.shape[-self.axes - 1])
            return self._run(few, images, filling, self.taps(()))[0]

    def _run(
        self, tensors: Tensors, images: Tensor, filling: Filling, taps: Taps
    ) -> tuple[Tensor, Tensors]:
        if self.way == "wide":
            self.current.filling = filling
            members = len(filling.counts)
            inputs = arranged(images, members, self.axes, self.flat)
            logits: Tensor = functional_call(self.network, tensors, (inputs,), strict=True)
            return logits, {n: by_client(each, members) for n, each in taps.take().items()}
        shared = images.dim() == self.axes + 1
        axes = (0, None if shared else 0, None if filling.mask is None else 0)

        def one(tensors: Tensors, images: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensors]:
            self.current.filling = replace(filling, mask=mask)
            logits: Tensor = functional_call(self.network, tensors, (images,), strict=True)
            return logits, taps.take()

        together: tuple[Tensor, Tensors] = torch.vmap(one, in_dims=axes)(
            tensors, images, filling.mask
        )
        return together

    def _check(self, parameters: Mapping[str, Tensor]) -> None:
        if difference := unlike(self.reference, parameters):
            raise ValueError(f"parameters do not fit the stack: {difference}")


def masked(model: nn.Module, current: Current) -> nn.Module:
    """Copy a network, with batch norms that leave padding out.

    Args:
        model: The architecture; not changed.
        current: Through which the caller will say how a batch is filled.

    Returns:
        The copy, with the same names of parameters and buffers.
    """
    copy = deepcopy(model)
    if isinstance(copy, nn.modules.batchnorm._BatchNorm):
        return MaskedBatchNorm(copy, current, wide=False)
    for parent in list(copy.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, MaskedBatchNorm(child, current, wide=False))
    return copy


def _stacked(tensor: Tensor, size: int, way: Way) -> Tensor:
    """Make room for `size` tensors like one."""
    if tensor.dim() != 4 or way == "vmap":  # vmap refuses some layers with channels last
        return tensor.new_empty((size, *tensor.shape))
    # The order of memory that a grouped convolution of [G*D, C, k, k] reads.
    rows = tensor.new_empty((size * len(tensor), *tensor.shape[1:]))
    rows = rows.contiguous(memory_format=torch.channels_last)
    return torch.unflatten(rows, 0, (size, len(tensor)))
