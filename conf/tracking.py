"""What the config says of tracking, as plain values."""

from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from conf.building import instantiate
from conf.errors import ConfigError


def tracking_options(
    config: DictConfig, num_clients: int, splits: Any, begins: bool
) -> dict[str, Any]:
    """Return keyword arguments of the tracker.

    Args:
        config: The composed config.
        num_clients: How many there are to be watched.
        splits: The federation's `clients.data.Splits`.
        begins: Whether the run begins: one that is resumed has told its choices.

    Returns:
        `config_text`, `probes`, `figures_every`, `watch`, `choices`, and `proxy_labels`: those of
        the proxy set, or None where they are not to be compared with.

    Raises:
        ConfigError: A client to be watched is not there, or a class of the proxy set.
    """
    text, tracking = OmegaConf.to_yaml(config, resolve=True), config.tracking
    probes = {str(name): instantiate(probe) for name, probe in config.probes.items()}
    watch = [*tracking.watch]
    if absent := [k for k in watch if not 0 <= k < num_clients]:
        raise ConfigError(
            f"tracking.watch={watch}: there is no client {absent[0]}, expected 0..{num_clients - 1}"
        )
    labelled = tracking.proxy_labels
    if labelled is None:  # another data set's classes may mean something else
        labelled = config.data.proxy_source is None
    proxy, private, num_classes = splits.proxy, splits.private, splits.private.num_classes
    if labelled and proxy.label_values != private.label_values:
        raise ConfigError(
            f"tracking.proxy_labels=true: {proxy.name} and {private.name} do not number their "
            "classes alike: expected files with the same labels, or both to say num_classes="
        )
    if labelled and (most := proxy.labels.max(initial=-1)) >= num_classes:  # it may be empty
        raise ConfigError(
            f"tracking.proxy_labels=true: {proxy.name} has labels up to {most}, "
            f"expected below {num_classes}, the clients' number of classes"
        )
    return {
        "config_text": text,
        "probes": probes,
        "figures_every": tracking.figures_every,
        "watch": watch,
        "choices": _choices(config) if begins else {},
        "proxy_labels": proxy.labels if labelled else None,
    }


def _choices(config: DictConfig) -> dict[str, Any]:
    """Return the seed, and what the command line says."""
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    given: dict[str, Any] = {"seed": config.seed}
    for override in OverridesParser.create().parse_overrides(list(words)):
        if override.key_or_group != "data.root" and not override.is_delete():
            value = override.value()
            plain = isinstance(value, bool | int | float)
            given[override.key_or_group] = value if plain else override.get_value_string()
    return given
