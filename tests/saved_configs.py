"""Run folders that hold a config only, and what a resume makes of them."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from conf.resume import resumed_config


@cache
def _once(*overrides: str) -> DictConfig:
    """Compose: a third of a second."""
    return compose("config", overrides=[*overrides])


def saved(folder: Path, *overrides: str, **changes: Any) -> Path:
    """Write a run folder's config, with some keys changed behind Hydra's back."""
    config = deepcopy(_once(*overrides))
    OmegaConf.resolve(config)  # as a run does
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=False))
    return folder


def resumed(folder: Path, *overrides: str) -> DictConfig:
    """Resume as the command line would; what else it says is composed once for all folders."""
    config = deepcopy(_once(*overrides))
    config.resume = str(folder)
    return resumed_config(config, [f"resume={folder}", *overrides])
