"""Run folders that hold a config only, and what a resume makes of them."""

from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from conf.resume import resumed_config


def saved(folder: Path, *overrides: str, **changes: Any) -> Path:
    """Write a run folder's config, with some keys changed behind Hydra's back."""
    config = compose("config", overrides=list(overrides))
    OmegaConf.resolve(config)  # as a run does
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=False))
    return folder


def resumed(folder: Path, *overrides: str) -> DictConfig:
    given = [f"resume={folder}", *overrides]
    return resumed_config(compose("config", overrides=given), given)
