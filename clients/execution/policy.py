"""Whether and how like clients train together: decided by the architecture, never by a clock."""

from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from clients.data import Task
from clients.execution.grouped_layers import starts_flat, widened
from clients.execution.masking import Current, Filling
from clients.execution.stack import Stack, Way
from clients.seeding import seeded_torch
from clients.training.optimizer_steps import Optimizer, elementwise

RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU)
"""Layers that draw from torch's generator, of which each client would need its own."""

STATEFUL = (nn.modules.instancenorm._InstanceNorm, nn.SyncBatchNorm)
"""Norms with statistics that padding would reach."""

WIDEST_ON_CPU = 16
"""Most channels of a convolution that is worth widening on a CPU. Groups of 8, one thread, wide
against one by one (`python -m benchmarks.groups`, docs/benchmarks.md): LeNet-5 (6 and 16 channels)
1.6 to 1.9 times faster, logistic regression 2.3 to 3.5, MLP 1.4 to 1.5; ResNet-20 (64) 1.0, the CNN
(64) and ResNet-8 (64) 0.8 to 1.05, VGG-9 0.85, ResNet-18 0.8. vmap over convolutions 0.6 to 1.0."""

ON_CPU = "on a CPU, "
"""How a reason begins that is one of speed alone; any other forbids to stack."""


def way_of(model: nn.Module, task: Task, optimizer: Optimizer) -> tuple[Way | None, str]:
    """Decide how clients of one architecture are trained.

    The same arguments give the same answer on every machine with the same kind of device.

    Args:
        model: A network of the architecture, on the device where it will train; not changed.
        task: What it is to predict.
        optimizer: What it will train with.

    Returns:
        The way to stack it, or None for one by one, and why, for the user.
    """
    if reason := _unfit(model, optimizer):
        return None, reason
    way, reason = _measured(model, len(task.input_shape))
    if way is None:
        return None, reason
    if fault := _fault(model, task, way):
        return None, fault
    return way, reason


def _measured(model: nn.Module, axes: int) -> tuple[Way | None, str]:
    """Choose by what the architecture is made of: the rule, and the table behind it."""
    convolutions = [m for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd)]
    widest = max((convolution.out_channels for convolution in convolutions), default=0)
    on_cpu = next(model.parameters()).device.type == "cpu"
    if on_cpu and widest > WIDEST_ON_CPU:
        return None, f"{ON_CPU}convolutions of {widest} channels are as fast one by one"
    try:
        widened(model, Current())
    except ValueError as error:
        if on_cpu and convolutions:
            return None, f"{ON_CPU}vmap over convolutions is slower than one by one; {error}"
        return "vmap", str(error)
    if axes not in (1, 3) and not starts_flat(model):
        return "vmap", f"its inputs of {axes} axes are neither rows nor images"
    return "wide", "all its layers can be widened"


def _unfit(model: nn.Module, optimizer: Optimizer) -> str | None:
    """Say what forbids stacking this network under this optimiser; None if nothing does."""
    if not elementwise(optimizer):
        kind = getattr(optimizer, "func", optimizer)
        name = getattr(kind, "__name__", type(kind).__name__)
        return f"{name} does not update each number by its own gradient alone"
    named = [*model.named_parameters(), *model.named_buffers()]
    if {name for name, _ in named} != set(model.state_dict()):
        return "it shares tensors between modules or keeps state outside its state dict"
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return "it has no parameter to train"
    for module in model.modules():
        if any(isinstance(v, Tensor) and not v.is_leaf for v in vars(module).values()):
            return f"{type(module).__name__} keeps a computed tensor, which torch does not copy"
        if isinstance(module, RANDOM):
            return f"{type(module).__name__} draws at random, for each client from its own stream"
        if isinstance(module, STATEFUL):
            return f"{type(module).__name__} would take padding for examples"
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            return f"{type(module).__name__} answers by the batch's own statistics"
    return None


def _fault(model: nn.Module, task: Task, way: Way) -> str | None:
    """Run two networks stacked and alone, the second client's batch padded; say what differs."""
    network = deepcopy(model).double().train()  # in double, so that rounding is no excuse
    device = next(network.parameters()).device
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in network.parameters():  # a gain that begins at zero would hide its branch
            noise = torch.from_numpy(rng.normal(scale=0.1, size=tuple(parameter.shape)))
            parameter.add_(noise.to(device))
    images = task.made_up(rng, 2, 4).to(device)
    images[1, 3] = images[1, 0]
    mask = torch.tensor([[True] * 4, [True] * 3 + [False]], device=device)
    filling = Filling(np.array([4, 3]), mask, np.zeros(2, dtype=np.bool_))
    with seeded_torch(rng):
        try:
            stack = Stack(network, 2, way, len(task.input_shape))
            stack.load_all(network.state_dict())
            tensors = stack.first(2)
            together, _ = stack.outputs(tensors, images, filling, stack.taps(()))
            leaves = [tensors[name] for name in stack.trainable]
            torch.autograd.grad(together.sum(), leaves, allow_unused=True)
            alone = [network(images[0]), network(images[1, :3])]
            pairs = zip((together[0], together[1, :3]), alone, strict=True)
            same = [torch.allclose(mine, theirs, rtol=1e-6, atol=1e-8) for mine, theirs in pairs]
        except Exception as error:  # anyone's code
            first = str(error).split("\n", 1)[0]
            return f"it cannot run stacked: {type(error).__name__}: {first}"
    return None if all(same) else "its answer to an example depends on the others of the batch"
