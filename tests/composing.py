"""The config as the command line composes it."""

import os
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from conf.schema import register
from tests.places import CONF, ROOT


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


register()


@cache
def _chosen(*choices: str) -> bytes:
    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch:
        hasten_hydra(patch)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return pickle.dumps(compose("config", overrides=[*choices]))


def hasten_hydra(patch: pytest.MonkeyPatch) -> None:
    """Let Hydra compose in half the time: files are parsed once, and no map of choices is made."""
    patch.setattr(ConfigRepository, "load_config", _read_once)
    patch.setattr(defaults_list, "_create_interpolation_map", _known_choices)


def _known_choices(overrides: Any, defaults: Any, self_added: bool) -> Any:
    """Merge none: no list of defaults of ours refers to a choice."""
    return overrides.known_choices


_read = ConfigRepository.load_config
_KNOWN: dict[tuple[str, tuple[str, ...]], bytes] = {}


def _read_once(repository: ConfigRepository, config_path: str) -> Any:
    """Have each of our files parsed once; a test may change its own."""
    sources = [(each, _place_of_ours(each.scheme(), each.path)) for each in repository.sources]
    if any(place is None and each.is_config(config_path) for each, place in sources):
        return _read(repository, config_path)
    places = tuple(place for _, place in sources if place is not None)
    if (config_path, places) not in _KNOWN:
        _KNOWN[config_path, places] = pickle.dumps(_read(repository, config_path))
    return pickle.loads(_KNOWN[config_path, places])


@cache
def _place_of_ours(scheme: str, path: str) -> str | None:
    """Say where a source of Hydra's own or of ours is; None: it is a test's."""
    if scheme != "file":
        return path
    place = os.path.abspath(path.removeprefix("file://"))
    return place if Path(place).is_relative_to(ROOT) else None


def _is_value(word: str) -> bool:
    name = word.lstrip("+~").split("=")[0]
    return not (name.startswith("hydra.") or (CONF / name).is_dir())
