"""Taps: named places in a network where features are read, without a change to the network."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from clients.data import Task

PENULTIMATE = "penultimate"
"""The tap that every network with a linear classifier has: what its last linear layer receives."""


class Taps:
    """Read features at named places of a network, at each forward pass, with their gradients.

    A place is a module's name, as `network.named_modules()` has it, and gives the module's output;
    or `PENULTIMATE`, the input of the `torch.nn.Linear` that is called last, in whatever order they
    were registered. Used as a context: hooks are removed at its end, so that nothing of them stays
    in the network.
    """

    def __init__(
        self, network: nn.Module, names: Iterable[str], linear: type[nn.Module] = nn.Linear
    ) -> None:
        """Choose the places.

        Args:
            network: Any network.
            names: Of the places.
            linear: What a linear layer is in it.

        Raises:
            ValueError: There is no place of that name; says which there are.
        """
        self._network, self._linear = network, linear
        self.names = tuple(names)
        # Nobody is listened to in most training and all answering: then the walk is saved.
        self._modules = dict(network.named_modules()) if self.names else {}
        for name in self.names:
            if name != PENULTIMATE and name not in self._modules:
                there = ", ".join(key for key in self._modules if key)
                kind = type(network).__name__
                raise ValueError(f"tap '{name}': {kind} has only {PENULTIMATE}, {there}")
        self._latest: dict[str, object] = {}
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        """Begin to listen."""
        for name in self.names:
            if name not in self._modules:  # a module of that very name is itself
                layers = [m for m in self._modules.values() if isinstance(m, self._linear)]
                self._hooks += [layer.register_forward_pre_hook(self._entering) for layer in layers]
            else:
                self._hooks.append(self._modules[name].register_forward_hook(self._leaving(name)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the hooks away."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._latest = [], {}

    def take(self) -> dict[str, Tensor]:
        """Return, and forget, what the latest forward pass gave.

        Returns:
            Features [B, ...] by place.

        Raises:
            ValueError: A place gave nothing, or no tensor; names it.
        """
        latest, self._latest = self._latest, {}
        found = {}
        for name in self.names:
            features = latest.get(name)
            if name not in self._modules and features is None:
                raise ValueError(
                    f"{type(self._network).__name__} calls no torch.nn.Linear: expected a linear "
                    "classifier, whose input is the penultimate feature"
                )
            if not isinstance(features, Tensor):
                raise ValueError(f"tap '{name}' gave {features}: expected a tensor [B, ...]")
            found[name] = features
        return found

    def _entering(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._latest[PENULTIMATE] = inputs[0]

    def _leaving(self, name: str) -> Callable[..., None]:
        def note(module: nn.Module, inputs: object, output: object) -> None:
            self._latest[name] = output

        return note


def take_map(taps: Taps) -> Tensor:
    """Return, and forget, the feature map at the only place of some taps.

    Args:
        taps: Of one place.

    Returns:
        [B, D, H, W]; a flat output [B, D] as maps of one pixel.

    Raises:
        ValueError: It gave nothing, or no tensor of two or four axes.
    """
    ((name, latest),) = taps.take().items()
    if latest.dim() not in (2, 4):
        raise ValueError(
            f"tap '{name}' gave {tuple(latest.shape)}: expected [B, D, H, W] or [B, D]"
        )
    return latest if latest.dim() == 4 else latest[:, :, None, None]


def last_map(network: nn.Module, task: Task) -> str:
    """Find where to tap a network of which nothing is known: the last of its feature maps.

    Args:
        network: Network from [B, C, H, W] to logits [B, classes], in eval mode.
        task: Of the network; gives the shape of inputs.

    Returns:
        Name of the module that is the last to give a tensor of four axes with more than one pixel,
        as FFL takes maps before they are averaged; where all have one pixel, the last of them; in
        a network without maps, of the last one before the logits that gives [B, D]. The outermost
        if several give the same tensor.

    Raises:
        ValueError: There is no such module.
    """
    seen: list[tuple[str, Tensor]] = []
    modules = dict(network.named_modules())

    def note(name: str) -> RemovableHandle:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                seen.append((name, output))

        handle: RemovableHandle = modules[name].register_forward_hook(hook)
        return handle

    hooks = [note(name) for name in modules if name]
    device = next(network.parameters()).device
    try:
        with torch.no_grad(), evaluating(network):
            logits = network(task.blank(2).to(device))
    finally:
        for each in hooks:
            each.remove()
    maps = [(name, output) for name, output in seen if output.dim() == 4]
    wide = [(name, output) for name, output in maps if output[0, 0].numel() > 1]
    flat = [(name, out) for name, out in seen if out.dim() == 2 and out is not logits]
    found = wide or maps or flat
    if not found:
        raise ValueError(
            f"{type(network).__name__} has no features: expected a module that gives [B, D] or "
            "[B, D, H, W]; name one as its tap"
        )
    last = found[-1][1]
    return min((name for name, output in found if output is last), key=len)


def one_tensor(outputs: object) -> Tensor:
    """Return a network's outputs [B, ...]; ValueError says what it gave if that is no tensor."""
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"gave {type(outputs).__name__}, expected a single tensor of outputs [B, ...], such as "
            "the logits alone"
        )
    return outputs


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode for the block; each of its modules is restored as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
