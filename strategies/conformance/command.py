"""`python run.py conformance KIND TARGET`: the verdict on a function of a user's own, line by line.

Importing it imports none of what it checks with: run.py does so whatever it is to do.
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from clients.points import HEAD, Point

ABOUT = """Hold a function of your own to the contract of the point where it goes in, on made-up
answers, examples and networks: docs/points.md. Without arguments: which points there are, and what
each gets and gives."""


def main(
    words: Sequence[str],
    engine: Callable[[], Iterable[Point]] = tuple,
    read: Callable[[Path, str], Any] | None = None,
) -> int:
    """Check a plug-in, or list the points where one may go in.

    Args:
        words: The command line after `conformance`.
        engine: Makes the points that are not of clients and strategies.
        read: (folder, YAML file) -> what a config with it would have; None = modules only.

    Returns:
        The exit status: 0, or 1 if something ought to be otherwise, or cannot be found.
    """
    from strategies.conformance.points import POINTS

    points = {point.kind: point for point in (*POINTS, *engine())}
    if not words:
        print(table(points.values()))
        return 0
    parser = argparse.ArgumentParser(prog="run.py conformance", description=ABOUT)
    parser.add_argument("kind", choices=points)
    parser.add_argument("target", metavar="MODULE.NAME", help="as after _target_; or FILE.yaml")
    parser.add_argument("numbers", nargs="*", metavar="NAME=VALUE", help="as beside _target_")
    parser.add_argument(
        "--config-dir", type=Path, default=Path(), metavar="FOLDER",
        help="where module or file is (default: the current folder)",
    )  # fmt: skip
    given = parser.parse_intermixed_args(words)
    folder, target = given.config_dir.resolve(), given.target
    sys.path.insert(0, str(folder))
    try:
        if read is not None and target.endswith(".yaml"):
            plugin = read(folder, target)
        else:
            plugin = bound(points[given.kind], target, keywords_of(given.numbers))
    except Exception as error:  # anyone's module
        print(f"error: {target}: {error}", file=sys.stderr)
        return 1
    return told(f"{given.kind} {target}", plugin, points[given.kind])


def told(title: str, plugin: Any, point: Point) -> int:
    """Print the verdict on a plug-in; return the exit status."""
    from strategies.conformance.checks import verdicts

    found = verdicts(plugin, point.checks)
    print(title)
    for verdict in found:
        if not verdict.untried:
            print(f"  {verdict}")
    failed = sum(verdict.fault is not None for verdict in found)
    untried = sum(verdict.untried for verdict in found)
    left = f", {untried} not tried for the same error" if untried else ""
    print(f"{len(found) - failed} of {len(found)} as it ought to be{left}")
    return 1 if failed else 0


def bound(point: Point, target: str, keywords: Mapping[str, Any]) -> Any:
    """Find a plug-in and bind its numbers, as a config's node does.

    Args:
        point: Where it goes in.
        target: `module.name`.
        keywords: Its numbers.

    Returns:
        The function, a partial of it, or what it makes.

    Raises:
        ValueError: The target has no module.
    """
    module, dot, name = target.rpartition(".")
    if not dot:
        raise ValueError("expected MODULE.NAME")
    function = getattr(importlib.import_module(module), name)
    if point.made and callable(function):
        return function(**keywords)
    return partial(function, **keywords) if keywords else function


def keywords_of(numbers: Sequence[str]) -> dict[str, Any]:
    """Read `name=value`, values as a YAML file writes them; ValueError names another word."""
    keywords = {}
    for word in numbers:
        key, sign, text = word.partition("=")
        if not sign or not key.isidentifier():
            raise ValueError(f"'{word}': expected NAME=VALUE")
        keywords[key] = _value_of(word, text)
    return keywords


def _value_of(word: str, text: str) -> Any:
    """Read a value as a config would: `false`, `null`, `1e-3`, `[1, 2]`, a text."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"'{word}': expected NAME=VALUE, a value as in YAML") from error
    if isinstance(value, bool | int | list | dict | None):
        return value
    try:
        return float(text)  # YAML 1.1 takes 1e-3 for a text
    except ValueError:
        return value if isinstance(value, str) else text  # of a date


def table(points: Iterable[Point]) -> str:
    """Say in a line what each function of a point gets and gives: docs/points.md has it."""
    return "\n".join([*HEAD, *(line for point in points for line in point.lines())])
