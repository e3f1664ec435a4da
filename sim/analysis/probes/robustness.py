"""Robustness to changes of the inputs: functions for an `Ask`, where each network is.

Distances are in the units in which networks see inputs (`clients.data.normalised`): deviations of a
channel. An epsilon of pixels in [0, 1] is that by `Dataset.std`: 0.1 of MNIST's pixels is 0.1 /
0.3081 = 0.325 here. The range that nothing leaves is that of each channel in the examples asked
about; of images that is black to white.
"""

from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from clients.data import Task


def fgsm(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    task: Task,
    epsilon: Annotated[float, ">= 0"] = 0.1,
) -> dict[str, float]:
    """Measure what is left after the fast gradient sign method, one step of size epsilon.

    x + epsilon sign(grad_x loss(x, y)): Goodfellow, Shlens, Szegedy, "Explaining and Harnessing
    Adversarial Examples", ICLR 2015 (arXiv:1412.6572), sec. 4.

    Args:
        network: From inputs to outputs.
        inputs: x [N, ...], floats.
        labels: y [N, ...], as the task has them.
        task: Gives loss and measure.
        epsilon: Largest change of an input, >= 0, in deviations of its channel.

    Returns:
        `fgsm_accuracy`; of a task that is measured otherwise `fgsm_miou`, `fgsm_r2`.

    Raises:
        ValueError: `epsilon` is out of range, or inputs are tokens.
    """
    _require_size(epsilon)
    attacked = inputs + epsilon * _gradient(network, inputs, labels, task).sign()
    return _left("fgsm", network, _in_range(attacked, inputs), labels, task)


def pgd(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    task: Task,
    rng: np.random.Generator,
    epsilon: Annotated[float, ">= 0"] = 0.1,
    steps: Annotated[int, ">= 1"] = 10,
    step_size: Annotated[float, "> 0"] | None = None,
) -> dict[str, float]:
    """Measure what is left after projected gradient descent, within epsilon of each input.

    From a random point of the box |x' - x| <= epsilon, x' <- box(x' + step_size sign(grad_x' loss(
    x', y))): Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR
    2018 (arXiv:1706.06083), sec. 2.1.

    Args:
        network: From inputs to outputs.
        inputs: x [N, ...], floats.
        labels: y [N, ...], as the task has them.
        task: Gives loss and measure.
        rng: Draws where to begin.
        epsilon: Largest change of an input, >= 0, in deviations of its channel.
        steps: >= 1.
        step_size: In the same unit, > 0; None = 2.5 epsilon / steps, which reaches every corner of
            the box.

    Returns:
        `pgd_accuracy`; of a task that is measured otherwise `pgd_miou`, `pgd_r2`.

    Raises:
        ValueError: A number is out of range, or inputs are tokens.
    """
    _require_size(epsilon)
    if steps < 1:
        raise ValueError(f"steps={steps}: expected an integer >= 1")
    if step_size is not None and step_size <= 0:
        raise ValueError(f"step_size={step_size}: expected > 0, or null")
    size = 2.5 * epsilon / steps if step_size is None else step_size
    start = rng.uniform(-epsilon, epsilon, tuple(inputs.shape)).astype(np.float32)
    attacked = _in_range(inputs + torch.from_numpy(start).to(inputs.device), inputs)
    for _ in range(steps):
        moved = attacked + size * _gradient(network, attacked, labels, task).sign()
        near = torch.minimum(torch.maximum(moved, inputs - epsilon), inputs + epsilon)
        attacked = _in_range(near, inputs)
    return _left("pgd", network, attacked, labels, task)


def input_gradient_norm(
    network: nn.Module, inputs: Tensor, labels: Tensor, *, task: Task
) -> dict[str, float]:
    """Measure how fast the loss grows with the input: mean over examples of |grad_x loss(x, y)|_2.

    To first order it is by how much the loss can grow for a change of length 1 (Drucker, Le Cun,
    "Improving Generalization Performance Using Double Backpropagation", 1992, penalise its square).

    Args:
        network: From inputs to outputs.
        inputs: x [N, ...], floats.
        labels: y [N, ...], as the task has them.
        task: Gives the loss.

    Returns:
        `input_gradient_norm`, >= 0, in units of the loss per deviation.

    Raises:
        ValueError: Inputs are tokens.
    """
    gradient = _gradient(network, inputs, labels, task)
    return {"input_gradient_norm": float(gradient.flatten(1).double().norm(dim=1).mean())}


# --- steps ---


def _gradient(network: nn.Module, inputs: Tensor, labels: Tensor, task: Task) -> Tensor:
    """Return each example's own gradient of its loss: in eval mode examples do not meet."""
    if not inputs.is_floating_point():
        raise ValueError("inputs are tokens, which have no gradient: expected numbers")
    at = inputs.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(task.loss(network(at), labels).sum(), at)
    return gradient


def _in_range(attacked: Tensor, inputs: Tensor) -> Tensor:
    """Cut each channel to the range that it has in the inputs."""
    axes = [axis for axis in range(inputs.dim()) if axis != 1]
    low, high = inputs.amin(axes, keepdim=True), inputs.amax(axes, keepdim=True)
    return torch.minimum(torch.maximum(attacked, low), high)


def _left(
    attack: str, network: nn.Module, attacked: Tensor, labels: Tensor, task: Task
) -> dict[str, float]:
    with torch.no_grad():
        rows = task.answers(network(attacked)).float().cpu()
    found = task.measures(rows, labels.cpu().numpy())
    return {f"{attack}_{task.measure}": found[task.measure]} if task.measure in found else {}


def _require_size(epsilon: float) -> None:
    if not 0 <= epsilon < float("inf"):
        raise ValueError(f"epsilon={epsilon}: expected >= 0 and finite")
