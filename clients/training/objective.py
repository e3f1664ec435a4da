"""The objective of a training step: loss per example, penalty, correction of gradients, anchors.

Clients, students and peers minimise the mean of `loss` over a batch plus `penalty`, by gradients
that `correct` may change before they are clipped. Each part is a pure function of tensors, so that
`torch.vmap` can run it for many clients at once; `clients.execution.objective_policy` tries that,
and says why clients train one by one where it cannot.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor

from clients.training.losses import cross_entropy, kl
from clients.training.taps import PENULTIMATE

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits [B, C], targets [B] or [B, C]) -> loss per example [B]."""

Named = Mapping[str, Tensor]
"""Parameters, or their gradients, by name."""
Anchors = Mapping[str, Any]
"""What an objective compares with: tensors, or parameters and buffers of a network, by name."""

START = "start"
"""The anchor that every training has: parameters and buffers as it began, a student's by round."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a network gives of a batch.

    Attributes:
        logits: Raw outputs [B, C].
        inputs: What it saw [B, ...].
        taps: Features by the name of their place, as `features` returns them.
        others: What the networks of some anchors give of the same batch, without gradients.
        rows: Positions [B] among the examples that training was given: what an anchor has for each
            example is indexed by them.
    """

    logits: Tensor
    inputs: Tensor
    taps: Named = field(default_factory=dict)
    others: Mapping[str, "Outputs"] = field(default_factory=dict)
    rows: Tensor = field(default_factory=partial(torch.zeros, 0, dtype=torch.int64))

    def features(self, tap: str = PENULTIMATE) -> Tensor:
        """Return the features at a place of the network.

        Args:
            tap: One of the objective's `taps`.

        Returns:
            [B, D] or [B, D, H, W], with their gradients.

        Raises:
            ValueError: It is not read; says which are.
        """
        if tap not in self.taps:
            raise ValueError(f"tap '{tap}': not in the objective's taps, {list(self.taps)}")
        return self.taps[tap]

    def of(self, anchor: str) -> "Outputs":
        """Return what the network of an anchor gives, in eval mode and without gradients.

        Args:
            anchor: One of the objective's `networks`.

        Returns:
            Its logits and features of the same inputs.

        Raises:
            ValueError: It is not asked; says which are.
        """
        if anchor not in self.others:
            raise ValueError(
                f"anchor '{anchor}': not in the objective's networks, {list(self.others)}"
            )
        return self.others[anchor]


def no_anchors(client_id: int) -> Anchors:
    """Give a client nothing to compare with but what it began with."""
    return {}


@dataclass(frozen=True, eq=False)
class OnLogits:
    """A loss of an objective that looks at the logits only."""

    loss: Loss

    def __call__(self, outputs: Outputs, targets: Tensor, anchors: Anchors) -> Tensor:
        """Return the loss per example [B]."""
        return self.loss(outputs.logits, targets)


@dataclass(frozen=True, eq=False)
class Objective:
    """What a training step minimises.

    Attributes:
        loss: (outputs, targets [B] or [B, C], anchors) -> loss per example [B], of an example that
            depends on that example alone; else clients train one by one.
        penalty: (parameters, anchors) -> scalar that is added to the mean of the losses; parameters
            are those to be trained. None = 0.
        correct: (gradients, parameters, anchors) -> gradients, with the same names, in new tensors;
            a parameter that a step's loss does not reach has none. None = as they are.
        taps: Places in the network whose features `loss` looks at.
        networks: Anchors that are parameters and buffers of a network of the same architecture, and
            that answer the batch too, for `loss` to look at: `START`, or of the client's own.
        anchors: The anchors that a client must come with, beside `START`.
        only: Names of the parameters that are trained, the others stay as they are; () = all.
    """

    loss: Callable[[Outputs, Tensor, Anchors], Tensor]
    penalty: Callable[[Named, Anchors], Tensor] | None = None
    correct: Callable[[Named, Named, Anchors], Named] | None = None
    taps: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    anchors: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    def trained(self, names: Iterable[str]) -> list[str]:
        """Return which of a network's parameters are trained; ValueError if it has not all."""
        names = list(names)
        if odd := sorted({*self.only} - {*names}):
            raise ValueError(f"objective.only: no '{odd[0]}', expected some of {', '.join(names)}")
        return [name for name in names if not self.only or name in self.only]

    @property
    def plugins(self) -> dict[str, Any]:
        """Its functions by name: what `clients.execution.isolation` watches."""
        loss = self.loss.loss if isinstance(self.loss, OnLogits) else self.loss
        return {"loss": loss, "penalty": self.penalty, "correct": self.correct}

    @property
    def is_plain(self) -> bool:
        """Whether it is a loss of the logits and nothing else, so that it looks at no anchor."""
        more = self.penalty is not None or self.correct is not None
        return isinstance(self.loss, OnLogits) and not more

    def require(self, anchors: Anchors, state: Iterable[str]) -> None:
        """Refuse to begin without what it compares with.

        Args:
            anchors: A client's.
            state: Names of the network's parameters and buffers.

        Raises:
            ValueError: One is not there, or not a network's; names it.
        """
        if START in anchors:
            raise ValueError(f"objective: anchor '{START}' is what training begins with")
        for name in (*self.anchors, *self.networks):
            if name != START and name not in anchors:
                raise ValueError(
                    f"objective: no anchor '{name}', expected {', '.join(self.anchors)}; there are "
                    f"{', '.join([START, *anchors])}"
                )
        for name in self.networks:
            if name != START and {*anchors[name]} != {*state}:
                raise ValueError(
                    f"objective: anchor '{name}' is no network of this architecture: expected all "
                    "that its state dict has"
                )


def as_objective(loss: Loss | Objective) -> Objective:
    """Return an objective: itself, or one that minimises a loss of logits alone."""
    return loss if isinstance(loss, Objective) else Objective(OnLogits(loss))


DistillationLoss = Callable[..., Tensor] | Objective
"""(student logits [B, C], soft labels [B, C], temperature) -> loss per example [B]; or an objective
whose loss, or loss of logits, takes `temperature` beside what it always gets."""


def with_temperature(loss: DistillationLoss, temperature: float) -> Loss | Objective:
    """Bind the temperature of distillation to a loss, or to that of an objective.

    Args:
        loss: (student logits, targets, temperature) -> [B], or an objective whose loss takes it.
        temperature: T > 0.

    Returns:
        A loss or an objective.
    """
    if isinstance(loss, Objective):
        if isinstance(loss.loss, OnLogits):
            logits: Any = loss.loss.loss
            return replace(loss, loss=OnLogits(partial(logits, temperature=temperature)))
        function: Any = loss.loss
        return replace(loss, loss=partial(function, temperature=temperature))
    return partial(loss, temperature=temperature)


# --- what is shipped ---


def proximal(
    mu: Annotated[float, ">= 0, finite"], objective: Loss | Objective = cross_entropy
) -> Objective:
    """Add a proximal term, mu/2 ||w - w0||^2, w0 being the parameters at the start: FedProx.

    Its gradient mu (w - w0) is added to that of the loss before both are clipped and an optimiser
    adds its weight decay; a parameter that a step's loss does not reach is not pulled.

    Args:
        mu: >= 0.
        objective: What is minimised beside it.

    Returns:
        Their sum.

    Raises:
        ValueError: mu is below 0, or not finite, or there is such a term.

    Reference: Li et al., MLSys 2020 (arXiv:1812.06127), eq. 2.
    """
    if not 0 <= mu < math.inf:
        raise ValueError(f"proximal_mu={mu}: expected >= 0 and finite")
    objective = as_objective(objective)
    if mu == 0:
        return objective
    if isinstance(objective.correct, partial) and objective.correct.func is pulled:
        raise ValueError(f"proximal_mu={mu}: there is a proximal term already, the objective's")
    return replace(objective, correct=partial(pulled, before=objective.correct, mu=mu))


def pulled(
    gradients: Named,
    parameters: Named,
    anchors: Anchors,
    *,
    before: Callable[[Named, Named, Anchors], Named] | None,
    mu: float,
    anchor: str = START,
) -> Named:
    """Add mu (w - w0), w0 being a named anchor, to gradients that were corrected `before`."""
    gradients = gradients if before is None else before(gradients, parameters, anchors)
    return {
        name: torch.add(gradient, parameters[name] - anchors[anchor][name], alpha=mu)
        for name, gradient in gradients.items()
    }


def not_true(
    weight: Annotated[float, ">= 0, finite"] = 1.0,
    temperature: Annotated[float, "> 0"] = 1.0,
    scale_by_t2: bool = True,
) -> Objective:
    """Keep what a network said, before it trained, of the classes that are not the label: FedNTD.

    Cross-entropy + weight * KL(q0 || q), q and q0 being the softmax over all classes but the label
    of the network and of what it was at the start.

    Args:
        weight: Of the second term, >= 0.
        temperature: T > 0 of q and q0.
        scale_by_t2: Multiply the second term by T**2; from memory.

    Returns:
        The objective, for labels.

    Raises:
        ValueError: A number is out of range.

    Reference: Lee et al. (FedNTD), NeurIPS 2022 (arXiv:2106.03097), eq. 7.
    """
    if not 0 <= weight < math.inf:
        raise ValueError(f"objective.weight={weight}: expected >= 0 and finite")
    if not 0 < temperature < math.inf:
        raise ValueError(f"objective.temperature={temperature}: expected > 0 and finite")
    loss = partial(_with_not_true, weight=weight, temperature=temperature, scale_by_t2=scale_by_t2)
    return Objective(loss, networks=(START,))


def _with_not_true(
    outputs: Outputs,
    labels: Tensor,
    anchors: Anchors,
    *,
    weight: float,
    temperature: float,
    scale_by_t2: bool,
) -> Tensor:
    if labels.is_floating_point():
        raise ValueError("not_true: labels are soft, expected one class of each example")
    logits, before = outputs.logits, outputs.of(START).logits
    places = torch.arange(logits.shape[1] - 1, device=logits.device)
    others = places + (places >= labels[:, None])  # all classes but the label [B, C - 1]
    targets = (before.gather(1, others) / temperature).softmax(-1)
    kept = kl(logits.gather(1, others), targets, temperature, scale_by_t2)
    return cross_entropy(logits, labels) + weight * kept
