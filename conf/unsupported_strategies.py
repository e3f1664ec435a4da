"""Strategies of Flower's that need something of their clients which ours do not do."""

from importlib import import_module

from omegaconf import DictConfig

from conf.errors import ConfigError
from conf.schema import targets_in

NEEDS = {
    "DifferentialPrivacyClientSideFixedClipping": "the client mod fixedclipping_mod",
    "DifferentialPrivacyClientSideAdaptiveClipping": "the client mod adaptiveclipping_mod",
    "FedXgbBagging": "clients that grow boosted trees",
    "FedXgbCyclic": "clients that grow boosted trees",
}
"""By the name of a class of Flower's; classes made from one need it too."""


def check_strategy(config: DictConfig) -> None:
    """Refuse a strategy, or one inside another, that would count on what nobody does.

    Args:
        config: The composed config; its targets have been checked.

    Raises:
        ConfigError: Names the key, the class and what it needs.
    """
    for key, node in targets_in(config.strategy, "strategy"):
        module, _, name = str(node["_target_"]).rpartition(".")
        for base in getattr(getattr(import_module(module), name), "__mro__", ()):
            need = NEEDS.get(base.__name__)
            if need is not None and base.__module__.startswith("flwr."):
                raise ConfigError(
                    f"{key}._target_={module}.{name}: {base.__name__} needs {need}, which our "
                    "clients do not run"
                )
