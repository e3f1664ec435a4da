"""Gradients of an objective: of a stack of networks, each by its own examples and anchors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from clients.execution.masking import Filling
from clients.execution.stack import Stack, Tensors
from clients.training.objective import START, Anchors, Objective, OnLogits, Outputs
from clients.training.single_gradients import (
    Precision,
    copied,
    corrected,
    half_precision,
    require_one_each,
)

Indices = npt.NDArray[np.int64]


class StackedGradients:
    """Gradients of an objective with respect to a stack's first networks, batch by batch."""

    def __init__(
        self,
        stack: Stack,
        members: int,
        objective: Objective,
        anchors: Sequence[Anchors],
        autocast: Precision | None,
    ) -> None:
        """Begin: the networks are now what they are at `START`.

        Args:
            stack: Holds the networks.
            members: How many of them.
            objective: What is minimised.
            anchors: Of each, beside `START`; none = nothing else.
            autocast: Half precision, or None.

        Raises:
            ValueError: An anchor or a tap is not there.
        """
        for own in anchors or [{}]:
            objective.require(own, stack.tensors)
        self.stack, self.objective, self.autocast = stack, objective, autocast
        self.trained = objective.trained(stack.trainable)
        self.refused = np.zeros(members, dtype=np.bool_)
        self.anchors: dict[str, Any] = tree_map(lambda *each: torch.stack(each), *anchors or [{}])
        if not objective.is_plain:
            start = copied({name: tensor[:members] for name, tensor in stack.tensors.items()})
            self.anchors = {START: start, **self.anchors}
        self.taps = stack.taps(objective.taps)

    def __call__(
        self,
        tensors: Tensors,
        leaves: Mapping[str, Tensor],
        counts: Indices,
        inputs: Tensor,
        targets: Tensor,
        positions: Tensor,
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        """Return each client's sum of losses, and the gradients of its mean and penalty.

        Args:
            tensors: Of the networks that are run [G, ...].
            leaves: Those to be trained, of as many or more networks [G', ...].
            counts: Examples of each network [G]; those behind its own are padding.
            inputs: [G*B, C, H, W].
            targets: [G, B] or [G, B, C].
            positions: Of the batch among each client's examples [G, B].

        Returns:
            Sums [G]; for each leaf a gradient [G', ...], or None.
        """
        members, rows = targets.shape[:2]
        mask = None
        if counts.min() < rows:
            mask = torch.from_numpy(np.arange(rows) < counts[:, None]).to(inputs.device)
        filling = Filling(counts, mask, self.refused[:members])
        images = torch.unflatten(inputs, 0, (members, rows))
        values = self._losses(tensors, filling, images, targets, positions)
        sums: Tensor = (values if mask is None else values * mask).sum(1)
        means = sums / torch.from_numpy(counts.clip(min=1)).to(sums)
        # Each network's gradient is its own mean's: no other mean depends on it.
        total, everyone = means.sum(), len(next(iter(leaves.values())))
        anchors = _first(self.anchors, everyone)
        if self.objective.penalty is not None:
            total = total + torch.vmap(self.objective.penalty)(dict(leaves), anchors).sum()
        gradients: Sequence[Tensor | None] = torch.autograd.grad(
            total, [*leaves.values()], allow_unused=True
        )
        if self.objective.correct is not None:
            correct = torch.vmap(self.objective.correct)
            gradients = corrected(correct, gradients, leaves, anchors)
        return sums.detach(), gradients

    def _losses(
        self,
        tensors: Tensors,
        filling: Filling,
        images: Tensor,
        targets: Tensor,
        positions: Tensor,
    ) -> Tensor:
        """Return the loss of each example, padding too [G, B]."""
        members, rows = targets.shape[:2]
        logits, taps = self._outputs(tensors, images, filling, train=True)
        if isinstance(on_logits := self.objective.loss, OnLogits):
            flat = on_logits.loss(logits.flatten(0, 1), targets.flatten(0, 1))
            return require_one_each(flat, members * rows).view(members, rows)
        anchors = _first(self.anchors, members)
        others = {}
        with torch.no_grad():
            for name in self.objective.networks:
                others[name] = self._outputs(anchors[name], images, filling, train=False)

        def loss(of_all: Any, targets: Tensor, anchors: Anchors) -> Tensor:
            inputs, at, (seen, features), of_others = of_all
            there = {n: Outputs(each, inputs, own, rows=at) for n, (each, own) in of_others.items()}
            everything = Outputs(seen, inputs, features, there, at)
            return require_one_each(self.objective.loss(everything, targets, anchors), rows)

        of_all = images, positions, (logits, taps), others
        values: Tensor = torch.vmap(loss)(of_all, targets, anchors)
        return values

    def _outputs(
        self, tensors: Tensors, images: Tensor, filling: Filling, train: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits [G, B, C], and features [G, B, ...] by tap."""
        with half_precision(self.autocast, images.device):
            logits, seen = self.stack.outputs(tensors, images, filling, self.taps, train)
        if self.autocast is not None:
            logits, seen = logits.float(), {name: each.float() for name, each in seen.items()}
        return logits, seen


def _first(anchors: Mapping[str, Any], members: int) -> dict[str, Any]:
    """Return the anchors of the first few networks."""
    few: dict[str, Any] = tree_map(lambda tensor: tensor[:members], dict(anchors))
    return few
