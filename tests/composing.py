"""The config as the command line composes it."""

import pickle
from functools import cache

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from conf.schema import register
from tests.places import CONF


def composed(*overrides: str) -> DictConfig:
    """Compose a config; it is the caller's own.

    Hydra takes 0.2 s and more: it is asked once for all that make the same choices, and then, as it
    does itself, sets values.
    """
    values = [word for word in overrides if _is_value(word)]
    config: DictConfig = pickle.loads(_chosen(*(w for w in overrides if w not in values)))
    if values:
        parsed = OverridesParser.create().parse_overrides(values)
        ConfigLoaderImpl._apply_overrides_to_config(parsed, config)
    return config


@cache
def _chosen(*choices: str) -> bytes:
    GlobalHydra.instance().clear()
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return pickle.dumps(compose("config", overrides=[*choices]))


def _is_value(word: str) -> bool:
    name = word.lstrip("+~").split("=")[0]
    return not (name.startswith("hydra.") or (CONF / name).is_dir())
