"""What a run folder's `config.yaml` may say, and what of it a resumed run may change.

The file is data that anyone may have written: it is read as text, nothing in it is looked up, and
it can name only classes and functions of ours, torch's optimisers and Flower's strategies, unless
the command line names others.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from conf.errors import ConfigError
from conf.schema import Config

TRUSTED = ("clients.", "strategies.", "sim.", "torch.optim.", "flwr.serverapp.strategy.")
"""Where a `_target_` that a run folder names may be defined."""

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
)
"""What no bit of a round depends on, as long as no client hangs."""

OF_THE_CALL = ("resume", "resume_targets")


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
    keys = [
        parsed.key_or_group for parsed in OverridesParser.create().parse_overrides([*overrides])
    ]
    for key in keys:
        if key not in (*CHANGEABLE, *OF_THE_CALL) and not key.startswith("hydra."):
            raise ConfigError(
                f"{key}=...: a resumed run keeps its config; only {', '.join(CHANGEABLE)} can be "
                "changed"
            )
    config = _read(Path(composed.resume) / "config.yaml", composed.resume_targets)
    for key in CHANGEABLE:
        if key in keys:
            OmegaConf.update(config, key, OmegaConf.select(composed, key))
    return config


def fingerprint(config: DictConfig) -> str:
    """Hash the part of a config on which the bits of a round depend.

    Args:
        config: The composed config.

    Returns:
        SHA-256 as hex.
    """
    rest = {
        key: value
        for key, value in _leaves(OmegaConf.to_container(config, resolve=True), "")
        if key not in (*CHANGEABLE, *OF_THE_CALL)
    }
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _read(path: Path, named: Sequence[str]) -> DictConfig:
    if not path.is_file():
        raise ConfigError(f"resume={path.parent}: no run folder, it has no config.yaml")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (YAMLError, ValueError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    for key, value in _leaves(content, ""):
        # Not plain would be a path: OmegaConf's YAML makes them, and some function may remove it.
        if not (value is None or value in ({}, []) or type(value) in (bool, int, float, str)):
            raise ConfigError(f"{path}: {key}={value!r}: expected a number, a text or the like")
        if isinstance(value, str) and "${" in value:
            raise ConfigError(f"{path}: {key}={value}: a resolved config has no interpolations")
        if key.split(".")[-1] == "_target_":
            _trust(path, key, value, named)
    begun: dict[str, Any] = {"resume": None, "resume_targets": []}
    try:
        return cast(DictConfig, OmegaConf.merge(OmegaConf.structured(Config), content, begun))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {error}") from error


def _trust(path: Path, key: str, target: Any, named: Sequence[str]) -> None:
    """Refuse a target from elsewhere, and one that a module of ours has only imported."""
    if target in named:
        return
    if isinstance(target, str) and target.startswith(TRUSTED):
        module_name, _, name = target.rpartition(".")
        try:  # what is private takes what its own module gives it, and checks nothing
            found = (
                None if name.startswith("_") else getattr(import_module(module_name), name, None)
            )
        except ImportError:  # a chain of attributes, such as a module's import of `os`
            found = None
        if str(getattr(found, "__module__", None)).startswith(TRUSTED):
            return
    raise ConfigError(
        f"{path}: {key}={target}: not run because a file says so; if it is yours and you trust it, "
        f"give 'resume_targets=[{target}]'"
    )


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Walk through lists and mappings; empty ones are leaves."""
    if isinstance(node, dict | list) and node:
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, f"{key}.{name}".lstrip("."))
    else:
        yield key, node
