"""Every option of the shipped config, found by walking its files: a new key is found by itself."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from conf.schema import Config
from conf.sections import SECTIONS
from tests.places import CONF

PRESETS = ("experiment", "debug")
"""Folders of values for options that are others'."""


def option_files() -> list[Path]:
    """List the options of all groups, those that only set other groups' left out."""
    files = (path for path in CONF.rglob("*.yaml") if path.parent != CONF)
    return sorted(path for path in files if path.parent.name not in PRESETS)


def shipped_keys() -> set[str]:
    """Name every key that has a value, each with the function whose argument it is.

    `strategy.sweeps of Gossip`: with another function it is another option. `_target_` and what
    only points at another key are none.
    """
    roots = {field.name for field in fields(Config)}
    roots -= {*SECTIONS, *(path.name for path in CONF.iterdir() if path.is_dir())}
    found = roots | {f"{name}.{f.name}" for name, kind in SECTIONS.items() for f in fields(kind)}
    found -= {f"{group}.{name}" for group, name in (("clients", "training"),)}
    found |= set(_leaves(_read(CONF / "config.yaml"), "", ""))
    for path in option_files():
        text = path.read_text()
        group = str(path.parent.relative_to(CONF)).replace("/", ".")
        if text.startswith("# @package "):
            group = text.split("\n", 1)[0].split()[-1].replace("_global_", "")
        found |= set(_leaves(_read(path), group, target_of(path)))
    return found


def target_of(path: Path) -> str:
    """Name the function that an option is of, be it only by its defaults; "" if there is none."""
    node = _read(path)
    if "_target_" in node:
        return str(node["_target_"])
    first = next(iter(node.get("defaults", ())), None)
    other = path.parent / f"{first}.yaml"
    return target_of(other) if isinstance(first, str) and other.exists() else ""


def _read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text()) or {}


def _leaves(node: dict[str, Any], prefix: str, target: str) -> Iterator[str]:
    own = str(node.get("_target_", target))
    if not (target and own.startswith("strategies.")):  # a part, which several strategies have
        target = own
    for name, value in node.items():
        key = f"{prefix}.{name}".lstrip(".")
        if name in ("_target_", "_partial_", "hydra") or (not prefix and name == "defaults"):
            continue
        if name == "defaults" and isinstance(value, list):
            continue
        if isinstance(value, dict) and value:
            yield from _leaves(value, key, target)
        elif not (isinstance(value, str) and value.startswith("${")):
            yield f"{key} of {target.rpartition('.')[2]}" if target else key
