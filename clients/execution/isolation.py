"""Isolation of clients in one process: networks are put back, plug-ins may keep nothing.

Any process runs any client at any time, so whatever one leaves behind in what another will use
would make the result depend on which process ran whom.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from types import MethodType
from typing import Any

import joblib
import torch
from torch import Tensor, nn

OF_TORCH = tuple(vars(nn.Module()))
"""Attributes that every module has."""

PLAIN = (int, float, complex, str, bytes, type(None))
"""Values that nothing can change; a NaN would not equal itself, but is the same object."""


class Original:
    """A network as it was when it was built, down to each module's attributes."""

    def __init__(self, network: nn.Module) -> None:
        """Note what it is made of; its numbers are not copied.

        Args:
            network: Not changed.
        """
        named = dict(network.named_modules())
        tensors = [*network.parameters(), *network.buffers()]
        self._same = {id(part): part for part in [*named.values(), *tensors]}
        self._parts = []
        for name, module in named.items():
            plain, containers, own = _attributes(module)
            self._parts.append((name, module, (plain, containers, _copied(own, self._same))))
        self._tensors = [(tensor, tensor.data, tensor.requires_grad) for tensor in tensors]

    def exchanged(self) -> str | None:
        """Say which module is not the one that was there, or is new, or gone; None if none is."""
        for name, module, (_, containers, _) in self._parts:
            then, now = containers["_modules"], module._modules
            for child in {**then, **now}:
                before, after = then.get(child), now.get(child)
                if before is not after:
                    where = f"module '{'.'.join(filter(None, (name, child)))}'"
                    kinds = [type(each).__name__ for each in (before, after)]
                    if before is None or after is None:
                        return f"{where} is {'new' if before is None else 'gone'}"
                    return f"{where} was {kinds[0]} and is another {kinds[1]}"
        return None

    def put_back(self) -> None:
        """Undo all but what numbers its tensors hold: also hooks, flags and attributes."""
        for _, module, (plain, containers, own) in self._parts:
            mine = module.__dict__
            mine.clear()
            mine.update(plain)
            for name, items in containers.items():
                mine[name].clear()
                mine[name].update(items)
            mine.update(_copied(own, self._same))
        for tensor, data, learns in self._tensors:
            if _view(tensor) != _view(data):
                tensor.data = data
            if tensor.requires_grad != learns:
                tensor.requires_grad_(learns)


@contextmanager
def same_modules(whose: str, network: nn.Module) -> Iterator[None]:
    """Train a network in the block that is to keep its modules.

    Args:
        whose: What an error begins with.
        network: It.

    Raises:
        ValueError: One was exchanged, or is new, or gone; names it.
    """
    original = Original(network)
    yield
    if fault := original.exchanged():
        raise ValueError(f"{whose} {fault}")


@contextmanager
def lent(network: nn.Module) -> Iterator[None]:
    """Lend a network in the block, in eval mode: what is done to it is undone, numbers included.

    Args:
        network: It.

    Raises:
        ValueError: A module was exchanged, or is new, or gone; names it.
    """
    original = Original(network)
    tensors = [*network.parameters(), *network.buffers()]
    held = [(tensor, tensor.detach().clone(), tensor.grad) for tensor in tensors]
    for tensor in tensors:
        tensor.grad = None
    try:
        network.eval()
        yield
    finally:
        fault = original.exchanged()
        original.put_back()
        with torch.no_grad():
            for tensor, numbers, gradient in held:
                tensor.copy_(numbers)
                tensor.grad = gradient
    if fault:
        raise ValueError(f"it changed its network: {fault}")


@contextmanager
def keeps_nothing(**plugins: Any) -> Iterator[None]:
    """Call plug-ins in the block; what an object, or a partial, of them keeps is put back.

    Functions, classes and partials of them with plain numbers take 20 us to watch. An object is
    copied and hashed at each call, 40 us for each attribute that is no plain value, 0.4 s for
    44 MB; a lazy cache counts as something kept. What a function keeps in a global, or in its
    closure, is not seen.

    Args:
        **plugins: By the name that an error calls them.

    Raises:
        ValueError: Something is not what it was; names the plug-in and the attribute or argument.
    """
    watched = [
        (f"{name}: {what}", held, _digests(held), _copied(held, {}))
        for name, plugin in plugins.items()
        for what, held in _holders(plugin)
    ]
    faults = []
    try:
        yield
    finally:
        for what, held, before, copy in watched:
            after = _digests(held)
            if changed := [k for k in before | after if before.get(k) != after.get(k)]:
                held.clear()
                held.update(copy)
                faults.append(f"{what} changed its '{changed[0]}'")
    if faults:
        raise ValueError(
            f"{faults[0]} as it was called: clients run in any order, in any process, so it may "
            "keep nothing from one to the next"
        )


def _holders(plugin: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Find what in a plug-in could keep something: attributes, and arguments of partials."""
    if isinstance(plugin, partial):
        bound = plugin.keywords.values()
        if not all(isinstance(value, PLAIN) or callable(value) for value in bound):
            yield getattr(plugin.func, "__name__", type(plugin.func).__name__), plugin.keywords
        plugin = [plugin.func, *plugin.args, *filter(callable, bound)]
    elif isinstance(plugin, MethodType):
        plugin = [plugin.__self__]
    if isinstance(plugin, list):
        for each in plugin:
            yield from _holders(each)
    elif not _is_code(plugin) and hasattr(plugin, "__dict__"):
        yield type(plugin).__qualname__, vars(plugin)


def _digests(held: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _digest(value) for name, value in held.items()}


def _digest(value: Any) -> Any:
    if isinstance(value, PLAIN):
        return type(value), value
    if _is_code(value):
        return id(value)
    try:
        return str(joblib.hash(value))
    except Exception:  # it cannot be pickled: another one is a change
        return id(value)


def _is_code(value: Any) -> bool:
    return inspect.isroutine(value) or inspect.isclass(value)


def _copied(attributes: Mapping[str, Any], same: Mapping[int, Any]) -> dict[str, Any]:
    """Copy attributes deeply, but for what is in `same`, by id, and what cannot be copied."""
    copies = {}
    for name, value in attributes.items():
        try:
            copies[name] = deepcopy(value, dict(same))
        except Exception:
            copies[name] = value
    return copies


# --- modules ---


def is_ours(function: Any) -> bool:
    """Tell whether a function is shipped, or what a partial calls and the functions it binds."""
    if isinstance(function, partial):
        bound = filter(callable, (*function.args, *function.keywords.values()))
        return all(map(is_ours, (function.func, *bound)))
    return str(getattr(function, "__module__", "")).startswith("clients.")


def foreign(network: nn.Module) -> bool:
    """Tell whether a network runs code that is neither ours nor torch's.

    What is left out needs no watch, which takes 25 to 60 us for a small network, 0.7 ms for
    ResNet-18.
    """
    known = ("torch.nn.", "clients.models.")
    hooks = [name for name in OF_TORCH if name.endswith("_hooks")]
    return any(
        not type(module).__module__.startswith(known)
        or "forward" in vars(module)
        or any(getattr(module, name) for name in hooks)
        for module in network.modules()
    )


def _attributes(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return a module's attributes, the contents of those of torch, and those that may change."""
    plain, containers = dict(vars(module)), {}
    for name in OF_TORCH:
        if isinstance(value := plain[name], dict | set):
            containers[name] = type(value)(value)
    if type(module).__module__.startswith("torch."):
        return plain, containers, {}
    own = {
        name: value
        for name, value in plain.items()
        if name not in containers
        and not isinstance(value, (*PLAIN, nn.Module, partial))
        and not _is_code(value)
    }
    return plain, containers, own


def _view(tensor: Tensor) -> tuple[object, ...]:
    """Say which numbers of the memory a tensor shows."""
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
