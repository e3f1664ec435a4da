"""A plug-in as a YAML file of a user's has it, beside the config that it would be chosen into."""

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from conf.building import instantiate
from conf.schema import HERE, search_word


def plugin_in(folder: Path, file: str) -> Any:
    """Make what a file says.

    Args:
        folder: The user's, as after `--config-dir`.
        file: Its path there, such as "strategy/fedproto.yaml".

    Returns:
        The plug-in; of a file that gives it a name of its own, as fields, probes and readers have,
        what the last name stands for.
    """
    found = instantiate(_node(folder, file))
    if not isinstance(found, dict):
        return found
    return found["source"] if "source" in found else [*found.values()][-1]


def _node(folder: Path, file: str) -> Any:
    """Read a file; one that leans on others, or on the config, with these."""
    node = OmegaConf.load(folder / file)
    if "defaults" not in node and "${" not in (folder / file).read_text():
        return node
    group, option = str(Path(file).parent), Path(file).stem
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(HERE), version_base="1.3"):
        words = [search_word(folder), f"{group}={option}"]
        config = compose("config", overrides=words)
    found = OmegaConf.select(config, group.replace("/", "."))
    return found if isinstance(found, DictConfig) else node
