"""From a node of the config to the function or object that it names."""

from functools import partial
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig


def build(node: Any) -> Any:
    """Instantiate a node, with plain functions where `_partial_: true` binds arguments.

    Hydra's own look at what they are called with at every call: 0.1 to 0.5 ms, as much as the
    step of a small student that calls its loss. Here names are checked once, before anything is
    built (`conf.schema.check_targets`, and `conf.resume` for a config that was read back).

    Args:
        node: Of the composed config, or a plain value.

    Returns:
        What `hydra.utils.instantiate` makes of it.
    """
    if not _names_a_target(node):
        return instantiate(node)
    parts = {str(name): build(node[name]) for name in node if _names_a_target(node[name])}
    made = instantiate(node, **parts)
    return partial(made.func, *made.args, **made.keywords) if isinstance(made, partial) else made


def _names_a_target(node: Any) -> bool:
    return isinstance(node, DictConfig) and "_target_" in node
