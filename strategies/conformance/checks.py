"""Conformance checks: what each kind of plug-in is held to, and how a verdict is reached."""

import inspect
import linecache
import traceback
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clients.points import Check
from clients.signatures import unoffered


@dataclass(frozen=True)
class Verdict:
    """What came of one check.

    Attributes:
        ought: What ought to be so.
        fault: What is not; None = it is so.
        untried: Whether it could not be looked at, for an error that another check has told.
    """

    ought: str
    fault: str | None
    untried: bool = False

    def __str__(self) -> str:
        """Say it in a line."""
        return f"ok    {self.ought}" if self.fault is None else f"FAIL  {self.ought}: {self.fault}"


def verdicts(plugin: Any, checks: Sequence[Check]) -> list[Verdict]:
    """Hold a plug-in to its contract; a check in which it raises has failed.

    Args:
        plugin: Anyone's.
        checks: Of its kind.

    Returns:
        One verdict for each check; one in all on a plug-in that cannot be called as it is bound.
    """
    if fault := _misbound(plugin):
        return [Verdict("Takes what is bound to it", fault)]
    found, raised = list[Verdict](), set[str]()
    for check in checks:
        ought = (check.__doc__ or "").splitlines()[0].rstrip(".")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                found.append(Verdict(ought, check(plugin)))
            except Exception as error:  # anyone's code
                fault = _said(error)
                found.append(Verdict(ought, fault, untried=fault in raised))
                raised.add(fault)
    return found


def _misbound(plugin: Any) -> str | None:
    """Say which bound argument a function does not have; None if it has them, or takes any.

    Of classes those of networks are looked at: what is beside a strategy's is not all for it.
    """
    if not isinstance(plugin, partial):
        return None
    if isinstance(plugin.func, type) and not issubclass(plugin.func, nn.Module):
        return None
    try:
        there = inspect.signature(plugin.func).parameters
    except ValueError:  # of a built-in
        return None
    if any(each.kind is each.VAR_KEYWORD for each in there.values()):
        return None
    odd = [name for name in plugin.keywords if name not in there]
    called = getattr(plugin.func, "__name__", type(plugin.func).__name__)
    return f"{called} has no argument '{odd[0]}', only {', '.join(there)}" if odd else None


def _said(error: Exception) -> str:
    """Say an error in a line, with a hint where a function lacks what a file would bind."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, TypeError) and "required" in text and "missing" in text:
        return f"{text} (bound in its YAML? then conformance KIND FOLDER/FILE.yaml)"
    return text


def refuses(error: ValueError) -> bool:
    """Tell whether a plug-in raised an error itself: no refusal is what numpy finds odd."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    if frame.f_globals.get("__name__", "").partition(".")[0] in ("numpy", "torch"):
        return False
    return linecache.getline(frame.f_code.co_filename, line).lstrip().startswith("raise ")


def unlike(one: Any, other: Any, tolerance: float = 1e-5) -> bool:
    """Tell whether two arrays or tensors differ, in shape or by more than rounding."""
    first, second = (np.asarray(_numbers(each), dtype=np.float64) for each in (one, other))
    if first.shape != second.shape:
        return True
    return not np.allclose(first, second, rtol=tolerance, atol=tolerance, equal_nan=True)


def shape_fault(value: Any, shape: tuple[int, ...]) -> str | None:
    """Say that something is no array of finite numbers of a shape; None if it is."""
    found = tuple(np.shape(_numbers(value)))
    if found != shape:
        return f"gives shape {found}, expected {shape}"
    return None if np.isfinite(np.asarray(_numbers(value))).all() else "gives NaN or infinity"


def changes(call: Callable[..., Any], *given: Any) -> str | None:
    """Call something and say which of the tensors that it is given it changes; None if none."""
    before = deepcopy(given)
    call(*given)
    for place, (was, now) in enumerate(zip(before, given, strict=True), start=1):
        if isinstance(was, Tensor | np.ndarray) and unlike(was, now, 0.0):
            return f"changes its argument {place} in place"
    return None


def _numbers(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value


def needs_no_more(places: int, names: tuple[str, ...]) -> Check:
    """Make the check that a function needs nothing beside what its point gives it.

    Args:
        places: How many arguments it gets by position.
        names: What it gets if it names it.

    Returns:
        The check.
    """

    def needs(plugin: Any) -> str | None:
        """Needs nothing that nobody gives it."""
        function = plugin if callable(plugin) else plugin.of  # of an asking probe
        name = unoffered(function, places, names)
        there = ", ".join(names) or "nothing by name"
        return None if name is None else f"needs '{name}', and is given {there}"

    return needs
