"""Gradients of an objective: of one network, for one batch after the other."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from clients.training.objective import START, Anchors, Named, Objective, Outputs
from clients.training.taps import Taps, evaluating, one_tensor

Precision = Literal["bfloat16"]


class NetworkGradients:
    """Gradients of an objective with respect to one network's parameters, batch by batch."""

    def __init__(
        self, model: nn.Module, objective: Objective, anchors: Anchors, autocast: Precision | None
    ) -> None:
        """Begin: the network is now what it is at `START`.

        Args:
            model: The network.
            objective: What is minimised.
            anchors: What it compares with, beside `START`.
            autocast: Half precision, or None.

        Raises:
            ValueError: An anchor or a tap is not there.
        """
        # Asking a network for its state takes 10 to 60 us, at each client's training.
        objective.require(anchors, model.state_dict() if objective.networks else ())
        self.model, self.objective, self.autocast = model, objective, autocast
        learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.named = {name: learned[name] for name in objective.trained(learned)}
        self.anchors = anchors
        if not objective.is_plain:
            self.anchors = {START: copied(model.state_dict()), **anchors}
        self.taps = Taps(model, objective.taps)

    def __call__(
        self, inputs: Tensor, targets: Tensor, rows: Tensor
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        """Return the loss of each example [B], and the gradient of each parameter to be trained.

        Args:
            inputs: [B, C, H, W].
            targets: Labels [B] or probs [B, C].
            rows: Positions among the examples that training was given [B].

        Returns:
            Both; None for a parameter that the loss does not reach.
        """
        objective, parameters = self.objective, list(self.named.values())
        outputs = self._outputs(self.model, inputs, rows, self._others(inputs, rows))
        values = require_one_each(objective.loss(outputs, targets, self.anchors), len(inputs))
        mean = values.mean()
        if objective.penalty is not None:
            mean = mean + objective.penalty(self.named, self.anchors)
        # Not .backward(): what it leaves in .grad costs a fill and an add per parameter.
        gradients: Sequence[Tensor | None] = torch.autograd.grad(
            mean, parameters, allow_unused=True
        )
        if objective.correct is not None:
            gradients = corrected(objective.correct, gradients, self.named, self.anchors)
        return values.detach(), gradients

    def _outputs(
        self,
        run: Callable[[Tensor], Tensor],
        inputs: Tensor,
        rows: Tensor,
        others: Mapping[str, Outputs],
    ) -> Outputs:
        with half_precision(self.autocast, inputs.device):
            logits = one_tensor(run(inputs))
        seen = self.taps.take()
        if self.autocast is not None:
            logits, seen = logits.float(), {name: each.float() for name, each in seen.items()}
        return Outputs(logits, inputs, seen, others, rows)

    def _others(self, inputs: Tensor, rows: Tensor) -> dict[str, Outputs]:
        """Let the networks of anchors answer."""
        if not (names := self.objective.networks):
            return {}
        with torch.no_grad(), evaluating(self.model):
            runs = {n: partial(functional_call, self.model, self.anchors[n]) for n in names}
            return {name: self._outputs(run, inputs, rows, {}) for name, run in runs.items()}


def require_one_each(values: Tensor, rows: int) -> Tensor:
    """Return losses [B]; ValueError says if they are not one per example."""
    if values.shape != (rows,):
        raise ValueError(f"objective: loss of shape {tuple(values.shape)}, expected ({rows},)")
    return values


def corrected(
    correct: Callable[[Named, Named, Anchors], Named],
    gradients: Sequence[Tensor | None],
    parameters: Named,
    anchors: Anchors,
) -> list[Tensor | None]:
    """Let an objective correct gradients.

    Args:
        correct: The objective's.
        gradients: One per parameter, of its shape [...], or None.
        parameters: By name.
        anchors: What it compares with.

    Returns:
        As many; None where there was none.

    Raises:
        ValueError: It gave others than it got.
    """
    present = {n: g for n, g in zip(parameters, gradients, strict=True) if g is not None}
    with torch.no_grad():
        found = correct(present, {name: parameters[name] for name in present}, anchors)
    if found.keys() != present.keys():
        raise ValueError(
            f"objective.correct gave gradients of {list(found)}, expected those of {list(present)}"
        )
    # Copies: they are clipped in place, and what a correction gave may be an anchor.
    return [found[name].clone() if name in found else None for name in parameters]


def copied(tensors: Named) -> dict[str, Tensor]:
    """Copy tensors, without gradients."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def half_precision(
    autocast: Precision | None, device: torch.device
) -> AbstractContextManager[object]:
    """Return the context of a forward pass in half precision, or one that does nothing."""
    if autocast is None:
        return nullcontext()
    # Nothing is cached: parameters change from step to step, and vmap wraps them anew.
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
