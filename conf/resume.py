"""What a run folder's `config.yaml` may say, and what of it a resumed run may change.

The file is data that anyone may have written: it is read as text, nothing in it is looked up, and
it can name only what the shipped config has at the same place, torch's optimisers and some of
Flower's strategies, unless the command line names others.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    CSafeLoader,
    YAMLError,
    load,
    parse,
)

from conf.building import instantiate
from conf.errors import ConfigError
from conf.renamed import (
    ADDED,
    first_name,
    new_name,
    put_into_parts,
    rename_keys,
    take_out_of_parts,
)
from conf.schema import Config
from conf.trust import (
    PATHS,
    nodes,
    require_file_path,
    require_plain_files,
    require_trusted,
    shipped,
)

CHANGEABLE = (
    "rounds",
    "checkpoint_every",
    "checkpoints_kept",
    "sim.workers",
    "sim.address",
    "sim.state_memory_bytes",
    "sim.object_store_bytes",
    "sim.peer_workers",
    "sim.peer_timeout_s",
    "sim.client_timeout_s",
    *(f"stop.{name}" for name in ("metric", "above", "below", "patience", "mode")),
)
"""What no bit of a round depends on, as long as no client hangs."""

OF_THE_CALL = ("resume", "resume_targets")

NEEDED = ("sim", "clients.training", "data.source", "partition", "student", "strategy")
"""Nodes without which there is nothing to build."""

MOST_BYTES, MOST_DEPTH = 1 << 24, 64
"""Of a config file: a run's has 5,000 and 6."""


def resumed_config(composed: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Read the config of the run that `resume` names, with what the command line changes.

    Args:
        composed: The config that Hydra composed from the command line.
        overrides: The command line without flags.

    Returns:
        The run's config; its own `resume` is null, as in the run's beginning.

    Raises:
        ConfigError: The command line changes what must stay, or the file cannot be trusted; names
            the key.
    """
    keys = _keys(overrides)
    if changed := next(filter(_is_kept, keys), None):
        raise ConfigError(_keeps(changed))
    folder = Path(composed.resume)
    if not (folder / "config.yaml").exists():
        raise ConfigError(f"resume={folder}: no run folder, it has no config.yaml")
    require_plain_files(folder)
    config = _read(folder / "config.yaml", composed.resume_targets)
    _forget_the_machine(config, keys)
    for key in CHANGEABLE:
        if key in keys:
            OmegaConf.update(config, key, OmegaConf.select(composed, key))
    return config


def change_refused(words: Sequence[str]) -> str | None:
    """Say that a resumed run keeps its config, where a word would change what its folder has.

    Such a word may be one that the shipped config does not know: that one is composed first.

    Args:
        words: The command line without flags.

    Returns:
        The line; None if no run is resumed, or the folder's config has no such key.
    """
    folder = next((word.partition("=")[2] for word in words if word.startswith("resume=")), None)
    if folder is None or not (path := Path(folder) / "config.yaml").is_file():
        return None
    try:
        content = load(_text(path), CSafeLoader)
    except (YAMLError, ValueError, OSError):  # told when it is read
        return None
    there = {key for place, node in _mappings(content, "") for key in (place, *node)}
    changed = filter(_is_kept, _keys(words))
    return next((_keeps(key) for key in changed if "/" in key or key in there), None)


def _mappings(node: Any, key: str) -> Iterator[tuple[str, list[str]]]:
    """Walk through mappings: the key of each, and those below it."""
    if isinstance(node, dict):
        yield key, [f"{key}.{name}".lstrip(".") for name in node]
        for name, value in node.items():
            yield from _mappings(value, f"{key}.{name}".lstrip("."))


def _keys(words: Sequence[str]) -> list[str]:
    return [each.key_or_group for each in OverridesParser.create().parse_overrides([*words])]


def _is_kept(key: str) -> bool:
    return key not in (*CHANGEABLE, *OF_THE_CALL) and not key.startswith("hydra.")


def _keeps(key: str) -> str:
    return f"{key}=...: a resumed run keeps its config; only {', '.join(CHANGEABLE)} can be changed"


def fingerprint(config: DictConfig) -> str:
    """Hash the part of a config on which the bits of a round depend.

    Args:
        config: The composed config.

    Returns:
        SHA-256 as hex.
    """
    content: Any = OmegaConf.to_container(config, resolve=True)
    rename_keys(content, back=True)
    for _, node in nodes(content, ""):
        take_out_of_parts(node)
    rest = {
        key: first_name(value) if key.endswith("_target_") else value
        for key, value in _leaves(content, "")
        if key not in (*CHANGEABLE, *OF_THE_CALL) and not (key in ADDED and value == ADDED[key])
    }
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def instantiate_trusted(place: str, node: Any, named: Sequence[str]) -> Any:
    """Instantiate a node that a file has, if it is plain data and calls what its place trusts.

    Args:
        place: Of the node in the config.
        node: As it was read, of anyone.
        named: Targets that are allowed wherever they stand.

    Returns:
        What it makes.

    Raises:
        ConfigError: Names the key.
    """
    _require_data(node)
    for inner, each in nodes(node, place):
        require_trusted(inner, each, named)
    return instantiate(OmegaConf.create(node))


def _forget_the_machine(config: DictConfig, given: Sequence[str]) -> None:
    """Set anew what `sim` says of the machine: a stranger's address would be connected to."""
    ours = shipped()["sim"].get(config.sim._target_, {})
    for key in CHANGEABLE:
        section, _, name = key.rpartition(".")
        if section != "sim" or name not in config.sim:
            continue
        before = config.sim[name]
        if name in ours:
            config.sim[name] = ours[name]
        else:  # somebody's own pool, with defaults of its own
            del config.sim[name]
        if key not in given and before != ours.get(name):
            print(
                f"note: {key}={before} of the run folder's config.yaml is not followed; say it "
                "again where it is wanted",
                file=sys.stderr,
            )


def _read(path: Path, named: Sequence[str]) -> DictConfig:
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(StringIO(_text(path))), resolve=False)
    except (YAMLError, ValueError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    try:
        _require_data(content)
        rename_keys(content)
        for place, node in nodes(content, ""):
            if isinstance(target := node.get("_target_"), str):
                node["_target_"] = new_name(target)
            put_into_parts(node)
            require_trusted(place, node, named)
        begun: dict[str, Any] = {"resume": None, "resume_targets": []}
        config = OmegaConf.merge(OmegaConf.structured(Config), _before(), content, begun)
        for key in NEEDED:
            if OmegaConf.select(config, f"{key}._target_") is None:
                raise ConfigError(f"{key}: expected a node with a _target_")
    except (ConfigError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    return cast(DictConfig, config)


def _before() -> DictConfig:
    """Say what was so where a config has no such key yet."""
    before = OmegaConf.create()
    for key, value in ADDED.items():
        OmegaConf.update(before, key, value)
    return before


def _text(path: Path) -> str:
    """Read YAML that has no aliases, whose copies may be without end, and is not deep."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"expected at most {MOST_BYTES} bytes")
    text, depth = path.read_text(encoding="utf-8"), 0
    for event in parse(text, Loader=CSafeLoader):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if isinstance(event, AliasEvent) or depth > MOST_DEPTH:
            raise ValueError(f"expected no alias, and at most {MOST_DEPTH} levels")
    return text


def _require_data(content: Any) -> None:
    """Refuse all but numbers, texts and the like, and paths to what is no file."""
    for key, value in _leaves(content, ""):
        # Not plain would be a path: OmegaConf's YAML makes them, and some function may remove it.
        if not (value is None or value in ({}, []) or type(value) in (bool, int, float, str)):
            raise ConfigError(f"{key}={value!r}: expected a number, a text or the like")
        if not f"{key}{value}".isprintable():  # a terminal obeys what is not
            raise ConfigError(f"{key!r}={value!r}: expected what can be printed in a line")
        if isinstance(value, str) and "${" in value:
            raise ConfigError(f"{key}={value}: a resolved config has no interpolations")
        if isinstance(value, str) and key.split(".")[-1] in PATHS:
            require_file_path(key, value)


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Walk through lists and mappings; empty ones are leaves."""
    if isinstance(node, dict | list) and node:
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, f"{key}.{name}".lstrip("."))
    else:
        yield key, node
