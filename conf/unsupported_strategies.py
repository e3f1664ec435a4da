"""Strategies of Flower's that need something of their clients which ours do not do."""

from omegaconf import DictConfig

from conf.errors import ConfigError
from conf.schema import function_of, targets_in

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
        config: The composed config.

    Raises:
        ConfigError: Names the key, the class and what it needs; or there is no such class.
    """
    for key, node in targets_in(config.strategy, "strategy"):
        for base in getattr(function_of(key, node), "__mro__", ()):
            need = NEEDS.get(base.__name__)
            if need is not None and base.__module__.startswith("flwr."):
                raise ConfigError(
                    f"{key}._target_={node['_target_']}: {base.__name__} needs {need}, which our "
                    "clients do not run"
                )
