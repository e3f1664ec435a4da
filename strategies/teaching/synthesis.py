"""Synthesis: a generator learns to make what an ensemble is sure of and the student is not.

Zhang et al., "DENSE: Data-Free One-Shot Federated Learning", NeurIPS 2022 (arXiv:2112.12371), and
Dai et al., "Enhancing One-Shot Federated Learning Through Data and Ensemble Co-Boosting", ICLR 2024
(arXiv:2402.15070), which differ in numbers. Letters: K networks, B generated inputs, C classes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from clients.training.losses import kl
from clients.training.optimizer_steps import Optimizer, Step


def answers_of(networks: Sequence[nn.Module], inputs: Tensor) -> Tensor:
    """Let all networks answer the same inputs [B, ...]: logits [K, B, C]."""
    return torch.stack([network(inputs) for network in networks])


def mixed(weights: Tensor, answers: Tensor) -> Tensor:
    """Return the ensemble's logits [B, C], sum_k w_k z_k."""
    logits: Tensor = torch.tensordot(weights, answers, 1)
    return logits


@dataclass(frozen=True, eq=False)
class Synthesis:
    """How inputs are generated.

    Attributes:
        generator: (shape of an input, noise_size) -> network from noise [B, noise_size] to inputs.
        optimizer: Makes the generator's optimiser from its parameters.
        steps: Of the generator, for each batch, >= 0.
        batch_size: B >= 2, inputs that are generated at once.
        noise_size: Numbers of noise for each input, >= 1.
        bn_weight: Of the distance to the statistics that batch norms of the networks keep, >= 0.
        adversarial_weight: Of KL(ensemble || student), which is maximised, >= 0.
        adversarial_temperature: Its T > 0.
        only_disagreed: Whether that counts only where the two answer other classes.
        hard_power: Inputs weigh (1 - p_y) to this power in the cross-entropy, >= 0; 0 = alike.
        perturbation: Size, in L2, of a step of each input in which the ensemble's answer changes
            most in a direction that is drawn (ODS), >= 0; 0 = none.

    Raises:
        ValueError: A number is out of range; names it.
    """

    generator: Callable[..., nn.Module]
    optimizer: Optimizer
    steps: Annotated[int, ">= 0"] = 30
    batch_size: Annotated[int, ">= 2"] = 256
    noise_size: Annotated[int, ">= 1"] = 256
    bn_weight: Annotated[float, ">= 0"] = 1.0
    adversarial_weight: Annotated[float, ">= 0"] = 1.0
    adversarial_temperature: Annotated[float, "> 0"] = 1.0
    only_disagreed: bool = True
    hard_power: Annotated[float, ">= 0"] = 0.0
    perturbation: Annotated[float, ">= 0"] = 0.0

    def __post_init__(self) -> None:
        least = {"steps": 0, "batch_size": 2, "noise_size": 1, "bn_weight": 0}
        least |= dict.fromkeys(("adversarial_weight", "hard_power", "perturbation"), 0)
        for name, smallest in least.items():
            if not smallest <= (value := getattr(self, name)) < math.inf:
                raise ValueError(f"strategy.synthesis.{name}={value}: expected >= {smallest}")
        if not 0 < (temperature := self.adversarial_temperature) < math.inf:
            key = "strategy.synthesis.adversarial_temperature"
            raise ValueError(f"{key}={temperature}: expected > 0")

    def batch(
        self,
        generator: nn.Module,
        step: Step,
        networks: Sequence[nn.Module],
        weights: Tensor,
        student: nn.Module,
        labels: Tensor,
    ) -> tuple[Tensor, float]:
        """Train the generator on fresh noise; return what it then makes of it.

        Args:
            generator: Trained in place.
            step: Of its optimiser.
            networks: The ensemble's, in eval mode.
            weights: Theirs [K].
            student: In eval mode.
            labels: Classes that the ensemble is to see in the inputs [B].

        Returns:
            Inputs [B, ...], and the last step's loss.
        """
        parameters = [*generator.parameters()]
        noise = torch.randn(len(labels), self.noise_size).to(labels.device)
        loss = torch.zeros(())
        for _ in range(self.steps):
            inputs = generator(noise)
            with norm_distances(networks) as distances:
                said = mixed(weights, answers_of(networks, inputs))
            loss = self.loss(said, student(inputs), labels)
            if distances:
                loss = loss + self.bn_weight * torch.stack(distances).sum() / len(networks)
            step(torch.autograd.grad(loss, parameters))
        with torch.no_grad():
            inputs = generator(noise)
        if self.perturbation:
            inputs = perturbed(inputs, networks, weights, self.perturbation)
        return inputs, float(loss.detach())

    def loss(self, said: Tensor, own: Tensor, labels: Tensor) -> Tensor:
        """Mean of (1 - p_y)**power CE(ensemble, y) - weight KL(ensemble || student).

        Args:
            said: The ensemble's logits [B, C].
            own: The student's [B, C].
            labels: y [B].

        Returns:
            A scalar, without what batch norms add.
        """
        probs = said.detach().softmax(-1)
        hard = (1 - probs[torch.arange(len(labels)), labels]) ** self.hard_power
        likely = (hard * functional.cross_entropy(said, labels, reduction="none")).mean()
        temperature = self.adversarial_temperature
        apart = kl(own, (said / temperature).softmax(-1), temperature)
        if self.only_disagreed:
            apart = apart * (said.argmax(-1) != own.argmax(-1))
        return likely - self.adversarial_weight * apart.mean()


@contextmanager
def norm_distances(networks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect, over the block, how far inputs of batch norms are from what these keep.

    Args:
        networks: Those whose batch norms are listened to.

    Yields:
        A list that gets ||mean - running mean|| + ||variance - running variance|| of each call.
    """
    found: list[Tensor] = []

    def listen(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].transpose(0, 1).flatten(1)
        mean, var = values.mean(1) - norm.running_mean, values.var(1, False) - norm.running_var  # type: ignore[operator]
        found.append(torch.linalg.vector_norm(mean) + torch.linalg.vector_norm(var))

    norms = [module for network in networks for module in network.modules()]
    hooks = [
        module.register_forward_pre_hook(listen)
        for module in norms
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def perturbed(
    inputs: Tensor, networks: Sequence[nn.Module], weights: Tensor, size: float
) -> Tensor:
    """Move each input where the ensemble's answer changes most in a direction that is drawn.

    Args:
        inputs: [B, ...].
        networks: The ensemble's, K of them.
        weights: Theirs [K].
        size: L2 norm of the step, >= 0.

    Returns:
        x + size g / ||g||, g = gradient of v . z(x), v uniform in [-1, 1]^C.

    Reference: output diversified sampling, Tashiro et al., NeurIPS 2020 (arXiv:2003.06878).
    """
    moved = inputs.detach().requires_grad_()
    said = mixed(weights, answers_of(networks, moved))
    direction = (2 * torch.rand(said.shape) - 1).to(said.device)
    (gradient,) = torch.autograd.grad((direction * said).sum(), moved)
    norms = torch.linalg.vector_norm(gradient.flatten(1), dim=1).clamp_min(1e-12)
    found: Tensor = moved + size * gradient / norms.view(-1, *[1] * (moved.dim() - 1))
    return found.detach()


def boosted_weights(
    weights: Tensor,
    answers: Tensor,
    labels: Tensor,
    epoch: int,
    *,
    step: Annotated[float, "> 0"],
    decay: Annotated[float, "in (0, 1]"],
) -> Tensor:
    """Move an ensemble's weights a step of one size each, so that it errs less on hard inputs.

    Args:
        weights: w [K].
        answers: Logits [K, B, C] to generated inputs.
        labels: Classes that these are to have [B].
        epoch: 0 .. E - 1.
        step: Co-Boosting's mu, >= 0.
        decay: Of the step from epoch to epoch, in (0, 1].

    Returns:
        clip(w - step decay**epoch sign(gradient of CE(sum_k w_k z_k, y)), 0, 1).
    """
    own = weights.detach().requires_grad_()
    loss = functional.cross_entropy(mixed(own, answers), labels)
    (gradient,) = torch.autograd.grad(loss, own)
    moved: Tensor = weights - step * decay**epoch * gradient.sign()
    return moved.clamp(0, 1)
