"""What the config says of tracking, as plain values."""

import re
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from conf.building import instantiate
from conf.errors import ConfigError
from conf.unread_answers import tell_unread


def headline(config: DictConfig, folder: Path) -> str:
    """Say what is to be run, and where: the first line, before anything is loaded."""
    chosen: Any = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    if any(word.startswith("resume=") for word in _words()):  # these are not the folder's
        chosen = _chosen_then(folder)
    nodes = {"strategy": config.strategy, "data": config.data.source, "partition": config.partition}
    named = {group: str(node._target_).rpartition(".")[2] for group, node in nodes.items()}
    named = {"clients": str(config.clients.num_clients)} | named
    named |= {group: chosen[group] for group in named if chosen.get(group)}
    rounds = f"{config.rounds} round{'s' * (config.rounds > 1)}"
    return (
        f"{named['strategy']} on {named['data']}, partition {named['partition']}, clients "
        f"{named['clients']}, {rounds}, seed {config.seed}: {folder}"
    )


def tracking_options(config: DictConfig, clients: Any, begins: bool) -> dict[str, Any]:
    """Return keyword arguments of the tracker.

    Args:
        config: The composed config.
        clients: The federation's `clients.population.clients.SimulatedClients`.
        begins: Whether the run begins: one that is resumed has told its choices, and what of
            its answers nobody looks at.

    Returns:
        `config_text`, `probes`, `figures_every`, `watch`, `choices`, and `proxy_labels`: those of
        the proxy set, or None where they are not to be compared with.

    Raises:
        ConfigError: A client to be watched is not there, or a class of the proxy set.
    """
    if begins:
        tell_unread(config)
    text, tracking = OmegaConf.to_yaml(config, resolve=True), config.tracking
    probes = {str(name): instantiate(probe) for name, probe in config.probes.items()}
    watch, num_clients = [*tracking.watch], len(clients.architectures)
    if absent := [k for k in watch if not 0 <= k < num_clients]:
        raise ConfigError(
            f"tracking.watch={watch}: there is no client {absent[0]}, expected 0..{num_clients - 1}"
        )
    labelled = tracking.proxy_labels
    if labelled is None:  # another data set's classes may mean something else
        labelled = config.data.proxy_source is None
    proxy, private = clients.splits.proxy, clients.splits.private
    if labelled and proxy.label_values != private.label_values:
        raise ConfigError(
            f"tracking.proxy_labels=true: {proxy.name} and {private.name} do not number their "
            "classes alike: expected files with the same labels, or both to say num_classes="
        )
    if labelled and (reason := private.task.label_fault(proxy.labels)):
        raise ConfigError(f"tracking.proxy_labels=true: {proxy.name}: {reason}")
    split = OmegaConf.select(config, "strategy.proxy_split", default={})
    told = {name: split.get(name) for name in ("calibration_share", "labelled") if split.get(name)}
    for name, value in told.items() if not labelled else ():
        raise ConfigError(
            f"strategy.proxy_split.{name}={value}: nobody knows whether labels of "
            f"{proxy.name} mean what those of {private.name} do: expected 0, or "
            "tracking.proxy_labels=true if they do"
        )
    # Probes compare classes: not numbers, nor those of unlike heads, nor what is not labelled.
    compared = labelled and private.task.has_classes and bool((proxy.labels >= 0).all())
    return {
        "config_text": text,
        "probes": probes,
        "figures_every": tracking.figures_every,
        "watch": watch,
        "choices": _choices(config) if begins else {},
        "proxy_labels": proxy.labels if compared else None,
    }


def _chosen_then(folder: Path) -> dict[str, str]:
    """Return which options the command that began a run chose, by group; {} if nobody knows."""
    try:
        noted = yaml.load((folder / ".hydra" / "hydra.yaml").read_text(), yaml.CSafeLoader)
        chosen = noted["hydra"]["runtime"]["choices"].items()
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError):
        return {}
    return {group: name for group, name in chosen if re.fullmatch(r"[\w.-]+", str(name))}


def _words() -> list[str]:
    """Return the command line's words."""
    return [*HydraConfig.get().overrides.task] if HydraConfig.initialized() else []


def _choices(config: DictConfig) -> dict[str, Any]:
    """Return the seed, and what the command line says."""
    given: dict[str, Any] = {"seed": config.seed}
    for override in OverridesParser.create().parse_overrides(_words()):
        if override.key_or_group != "data.root" and not override.is_delete():
            value = override.value()
            plain = isinstance(value, bool | int | float)
            given[override.key_or_group] = value if plain else override.get_value_string()
    return given
