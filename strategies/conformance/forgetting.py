"""Conformance by a second life: a plug-in of modules that are imported anew has forgotten all.

Clients run in any order, in any process, so what is kept in a global, a default argument or a
closure's module makes a result depend on who came first there. Here two plug-ins that know nothing
are asked the same in opposite orders.
"""

import importlib
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

from strategies.conformance.checks import unlike

SHIPPED = ("clients", "strategies", "sim", "conf", "stillhouse")
INSTALLED = tuple(
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")
)
Modules = Mapping[str, ModuleType]


def told_by_order(
    plugin: Any, ask: Callable[..., Sequence[Any]], asked: Sequence[tuple[Any, ...]]
) -> tuple[Any, ...] | None:
    """Ask one that knows nothing in order, another in the opposite order.

    Args:
        plugin: Anyone's; one that is shipped is not asked.
        ask: (plug-in, what is asked) -> numbers or arrays.
        asked: What is asked.

    Returns:
        What is answered otherwise; None if nothing is, or its modules cannot be imported twice.
    """
    try:
        if not (names := _own_modules(plugin)):
            return None
        one, other = (_again(plugin, imported_anew(names)) for _ in range(2))
    except Exception:  # a module that may be imported once, an object that cannot be copied
        return None
    first = {what: ask(one, *what) for what in asked}
    second = {what: ask(other, *what) for what in reversed(asked)}
    for what in asked:
        pairs = zip(first[what], second[what], strict=False)
        if len(first[what]) != len(second[what]) or any(unlike(a, b, 0.0) for a, b in pairs):
            return what
    return None


def imported_anew(names: Collection[str]) -> Modules:
    """Import modules once more, and leave those that are there in their places.

    Args:
        names: Of modules that are there.

    Returns:
        The new ones, by name.
    """
    there = {name: sys.modules.pop(name) for name in names}
    try:
        return {name: importlib.import_module(name) for name in names}
    finally:
        for name, module in there.items():
            sys.modules[name] = module
            parent, _, child = name.rpartition(".")
            if parent in sys.modules:
                setattr(sys.modules[parent], child, module)


def _own_modules(plugin: Any) -> list[str]:
    """Name the user's modules that a plug-in is of, and those of theirs that these lean on."""
    found, waiting = list[str](), [*_names_in(plugin, set())]
    while waiting:
        name = waiting.pop()
        if name in found or not _is_own(name):
            continue
        found.append(name)
        for value in vars(sys.modules[name]).values():
            odd = value.__name__ if isinstance(value, ModuleType) else _module_of(value)
            waiting += [odd] if isinstance(odd, str) else []
    return found


def _is_own(name: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None or name == "__main__" or name.partition(".")[0] in SHIPPED:
        return False
    return not any(Path(file).resolve().is_relative_to(folder) for folder in INSTALLED)


def _module_of(value: Any) -> Any:
    return getattr(value, "__module__", None)


def _parts_of(plugin: Any) -> Iterable[Any]:
    """Yield what a plug-in is made of: of a partial, a method, a container, an object."""
    if isinstance(plugin, partial):
        return [plugin.func, *plugin.args, *plugin.keywords.values()]
    if isinstance(plugin, MethodType):
        return [plugin.__self__]
    if isinstance(plugin, dict):
        return plugin.values()
    if isinstance(plugin, list | tuple):
        return plugin
    if isinstance(plugin, FunctionType):
        return [cell.cell_contents for cell in plugin.__closure__ or ()]
    return vars(plugin).values() if is_dataclass(plugin) or _is_own(type(plugin).__module__) else ()


def _names_in(plugin: Any, seen: set[int]) -> Iterable[str]:
    if id(plugin) in seen:  # a closure may hold itself
        return
    seen.add(id(plugin))
    if isinstance(plugin, type) or hasattr(plugin, "__qualname__"):
        yield str(_module_of(plugin))
    else:
        yield type(plugin).__module__
    if not isinstance(plugin, type):
        for part in _parts_of(plugin):
            yield from _names_in(part, seen)


def _again(plugin: Any, modules: Modules) -> Any:
    """Make a plug-in once more of the same code in other modules."""
    if isinstance(plugin, partial):
        named = {name: _again(value, modules) for name, value in plugin.keywords.items()}
        return partial(_again(plugin.func, modules), *_again(plugin.args, modules), **named)
    if isinstance(plugin, MethodType):
        return getattr(_again(plugin.__self__, modules), plugin.__name__)
    if isinstance(plugin, list | tuple):
        return type(plugin)(_again(each, modules) for each in plugin)
    if isinstance(plugin, dict):
        return {name: _again(each, modules) for name, each in plugin.items()}
    if isinstance(plugin, type) or hasattr(plugin, "__qualname__"):
        return _of_name(plugin, modules)
    if not (is_dataclass(plugin) or type(plugin).__module__ in modules):
        return plugin
    other = copy(plugin)
    object.__setattr__(other, "__class__", _of_name(type(plugin), modules))
    for name, value in vars(plugin).items():
        object.__setattr__(other, name, _again(value, modules))
    return other


def _of_name(plugin: Any, modules: Modules) -> Any:
    """Find a function or a class of the same name; one without a name there is made of its code."""
    module = modules.get(str(_module_of(plugin)))
    if "<" not in plugin.__qualname__:
        found: Any = module or plugin
        for name in plugin.__qualname__.split(".") if module else ():
            found = getattr(found, name)
        return found
    if not isinstance(plugin, FunctionType):
        return plugin
    cells = [CellType(_again(cell.cell_contents, modules)) for cell in plugin.__closure__ or ()]
    room = vars(module) if module else plugin.__globals__
    made = FunctionType(plugin.__code__, room, plugin.__name__, plugin.__defaults__, tuple(cells))
    made.__kwdefaults__ = plugin.__kwdefaults__
    return made
