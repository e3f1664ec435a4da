"""Named taps: what a module inside a network gives out, without a change to the network."""

from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from clients.training.evaluation import evaluating


class Tap:
    """Keeps the latest output of one named module of a network, with its gradient.

    Used as a context: the hook is the instance's own and is removed at the end, so that nothing of
    it stays in the network.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        """Choose the module.

        Args:
            network: Any network.
            name: Of one of its modules, as `network.named_modules()` has it.

        Raises:
            ValueError: It has none of that name; says which there are.
        """
        modules = dict(network.named_modules())
        if name not in modules:
            there = ", ".join(key for key in modules if key)
            raise ValueError(f"tap '{name}': {type(network).__name__} has only {there}")
        self.name = name
        self._module = modules[name]
        self._latest: Tensor | None = None
        self._hook: RemovableHandle | None = None

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._hook = self._module.register_forward_hook(self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the hook away."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._latest = None

    def take(self) -> Tensor:
        """Return, and forget, what the module gave in the latest forward pass.

        Returns:
            [B, D, H, W]; a module's flat output [B, D] as maps of one pixel.

        Raises:
            ValueError: It gave nothing, or no tensor of two or four axes.
        """
        latest, self._latest = self._latest, None
        if not isinstance(latest, Tensor) or latest.dim() not in (2, 4):
            found = tuple(latest.shape) if isinstance(latest, Tensor) else latest
            raise ValueError(f"tap '{self.name}' gave {found}: expected [B, D, H, W] or [B, D]")
        return latest if latest.dim() == 4 else latest[:, :, None, None]

    def _note(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self._latest = output


def last_map(network: nn.Module, image_shape: tuple[int, int, int]) -> str:
    """Find where to tap a network of which nothing is known: the last of its feature maps.

    Args:
        network: Network from [B, C, H, W] to logits [B, classes]; left as it was.
        image_shape: (channels, height, width).

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
            logits = network(torch.zeros(2, *image_shape, device=device))
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
