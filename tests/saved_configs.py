"""Run folders that hold a config only, and what a resume makes of them."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from conf.resume import resumed_config
from tests.composing import composed


def saved(folder: Path, *overrides: str, **changes: Any) -> Path:
    """Write a run folder's config, with some keys changed behind Hydra's back."""
    config = composed(*overrides)
    OmegaConf.resolve(config)  # as a run does
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=False))
    return folder


def resumed(folder: Path, *overrides: str) -> DictConfig:
    """Resume as the command line would."""
    config = composed(*overrides)
    config.resume = str(folder)
    return resumed_config(config, [f"resume={folder}", *overrides])
