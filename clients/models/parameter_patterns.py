"""Parameters and buffers chosen by patterns of their names."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from clients.models.factory import buffer_names

NORMS, BUFFERS = "@norm", "@buffers"
"""Patterns of what has no name in common: all of normalisation layers; statistics and counters."""

LAYERS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def chosen(pattern: str, network: nn.Module) -> set[str]:
    """Name the parameters and buffers of a network that a pattern matches.

    Args:
        pattern: With `*`, `?` and `[...]` as in names of files, case counting, such as
            "classifier.*"; "@norm" = parameters and statistics of normalisation layers; "@buffers"
            = statistics and counters, of whatever layer.
        network: Whose names.

    Returns:
        Names in its state dict; none if it matches nothing.
    """
    if pattern == BUFFERS:
        return buffer_names(network)
    names = network.state_dict().keys()
    if pattern == NORMS:
        inside = [n for n, module in network.named_modules() if isinstance(module, LAYERS)]
        return {name for name in names if name.rpartition(".")[0] in inside}
    return {name for name in names if fnmatchcase(name, pattern)}


def require_matches(key: str, patterns: Iterable[str], networks: Iterable[nn.Module]) -> None:
    """Refuse a pattern that matches nothing in any of the networks.

    Args:
        key: Of the config, for the error.
        patterns: As of `chosen`.
        networks: At least one.

    Raises:
        ValueError: Names the pattern, and the names that there are.
    """
    networks = list(networks)
    for pattern in patterns:
        if not any(chosen(pattern, network) for network in networks):
            there = sorted({name for network in networks for name in network.state_dict()})
            raise ValueError(
                f"{key}: '{pattern}' matches no parameter or buffer: expected a pattern of "
                f"{', '.join(there)}; or {NORMS}, {BUFFERS} where there are some"
            )
