"""From a node of the config to the function or object that it names."""

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException
from omegaconf import DictConfig, ListConfig
from omegaconf.base import Container
from omegaconf.omegaconf import flag_override


def instantiate(node: Any) -> Any:
    """Instantiate a node, with plain functions where `_partial_: true` binds arguments.

    Hydra's own look at what they are called with at every call: 0.1 to 0.5 ms, as much as the
    step of a small student that calls its loss. Here names are checked once, before anything is
    built (`conf.schema.check_targets`, and `conf.resume` for a config that was read back). Hence
    nothing that was built is given to Hydra again: it would take a dict for a node, of no checked
    name.

    Args:
        node: Of the composed config, or a plain value.

    Returns:
        What `hydra.utils.instantiate` makes of it.

    Raises:
        InstantiationException: What is named cannot be built; says which key.
    """
    if not _holds_targets(node):
        return hydra.utils.instantiate(node)
    if isinstance(node, ListConfig):
        return [instantiate(item) for item in node]
    inner = {str(name): instantiate(node[name]) for name in node if _holds_targets(node[name])}
    if "_target_" not in node:
        plain = {str(name): node[name] for name in node if name not in inner}
        return plain | inner
    if not inner:
        return _plain(hydra.utils.instantiate(node))
    outer = copy.deepcopy(node)
    outer._set_parent(node._get_parent())
    with flag_override(outer, ["struct", "readonly"], False):
        for name in inner:
            del outer[name]
        outer["_partial_"] = True
    bound = hydra.utils.instantiate(outer)
    call = partial(bound.func, *bound.args, **bound.keywords, **inner)
    if node.get("_partial_", False):
        return call
    try:
        return _plain(call())
    except Exception as error:
        key = node._get_full_key(None)
        story = f"Error in call to target '{node['_target_']}':\n{error!r}\nfull_key: {key}"
        raise InstantiationException(story) from error


def pairs(node: Any, key: str = "strategy") -> Iterator[tuple[str, Any, Any]]:
    """Build the scorers that a strategy, or a stage of it, has, and the discriminators beside them.

    Args:
        node: The strategy's.
        key: Of that node.

    Yields:
        Key, scorer and discriminator's recipe, or None, of each.
    """
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        return
    if _holds_targets(node.get("scorer")):
        yield key, instantiate(node.scorer), instantiate(node.get("discriminator"))
    for inner in node:
        yield from pairs(node[inner], f"{key}.{inner!s}")


def _holds_targets(node: Any) -> bool:
    if not isinstance(node, Container):
        return False
    if isinstance(node, DictConfig):
        names = [] if node._is_none() or node._is_missing() else list(node)
        return "_target_" in names or any(_holds_targets(node[n]) for n in names)
    return isinstance(node, ListConfig) and any(_holds_targets(item) for item in node)


def _plain(made: Any) -> Any:
    return partial(made.func, *made.args, **made.keywords) if isinstance(made, partial) else made
