"""`python run.py conformance KIND TARGET`: the verdict on a function of a user's own, line by line.

Importing it imports none of what it checks with: run.py does so whatever it is to do.
"""

import argparse
import ast
import importlib
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

ABOUT = """Hold a function of your own to the contract of the point where it goes in, on made-up
answers, examples and networks: docs/points.md. A kind that calls your function to make something (a
field, an objective) is given what it returns."""

KINDS = (
    *("scorer", "combiner", "loss", "rule", "trainer", "view", "condition"),
    *("field", "probe", "partition", "model"),
)
MAKES = ("field",)
"""Kinds whose target is called with its numbers, and returns what is held to the contract."""


def main(words: Sequence[str]) -> int:
    """Check a plug-in.

    Args:
        words: The command line after `conformance`.

    Returns:
        The exit status: 0, or 1 if something ought to be otherwise, or cannot be found.
    """
    parser = argparse.ArgumentParser(prog="run.py conformance", description=ABOUT)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("target", metavar="MODULE.NAME", help="as after _target_")
    parser.add_argument("numbers", nargs="*", metavar="NAME=VALUE", help="as beside _target_")
    parser.add_argument(
        "--config-dir", type=Path, default=Path(), metavar="FOLDER",
        help="where the module is (default: the current folder)",
    )  # fmt: skip
    given = parser.parse_intermixed_args(words)
    sys.path.insert(0, str(given.config_dir.resolve()))
    try:
        plugin = bound(given.kind, given.target, given.numbers)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        print(f"error: {given.target}: {error}", file=sys.stderr)
        return 1
    from strategies.conformance.checks import verdicts

    found = verdicts(plugin, checks_of(given.kind))
    print(f"{given.kind} {given.target}")
    for verdict in found:
        print(f"  {verdict}")
    failed = sum(verdict.fault is not None for verdict in found)
    print(f"{len(found) - failed} of {len(found)} as it ought to be")
    return 1 if failed else 0


def bound(kind: str, target: str, numbers: Sequence[str]) -> Any:
    """Find a plug-in and bind its numbers, as a config's node does.

    Args:
        kind: One of KINDS.
        target: `module.name`.
        numbers: `name=value`, values as Python writes them, or text.

    Returns:
        The function, a partial of it, or what it makes.

    Raises:
        ValueError: A word is no `name=value`, or the target has no module.
    """
    module, dot, name = target.rpartition(".")
    if not dot:
        raise ValueError("expected MODULE.NAME")
    function = getattr(importlib.import_module(module), name)
    keywords = {}
    for word in numbers:
        key, sign, text = word.partition("=")
        if not sign or not key.isidentifier():
            raise ValueError(f"'{word}': expected NAME=VALUE")
        try:
            keywords[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            keywords[key] = text
    if kind in MAKES:
        return function(**keywords)
    return partial(function, **keywords) if keywords else function


def checks_of(kind: str) -> Any:
    """Return what a kind is held to."""
    from strategies.conformance import of_clients, rules

    return {
        "scorer": rules.SCORER,
        "combiner": rules.COMBINER,
        "loss": rules.LOSS,
        "rule": rules.RULE,
        "trainer": of_clients.TRAINER,
        "view": of_clients.VIEW,
        "condition": of_clients.CONDITIONS,
        "field": of_clients.FIELD,
        "probe": of_clients.PROBE,
        "partition": of_clients.PARTITION,
        "model": of_clients.MODEL,
    }[kind]
