"""What clients are asked for and nobody looks at: told once, for a probe of tomorrow's may."""

import sys
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig

from conf.schema import function_of, plain, targets_in

SHIPPED = "strategies.aggregation.scorers."
OURS = ("clients.", "strategies.", "sim.", "torch.")
FIELD = "own_probs"
"""What a discriminator, or a confidence, says of each example."""


def tell_unread(config: DictConfig) -> None:
    """Note on stderr, before anybody trains, a discriminator whose answers are of no use.

    Args:
        config: The composed config.
    """
    named = [node["_target_"] for part in ("strategy", "probes")
             for _, node in targets_in(config.get(part) or {}, part)]  # fmt: skip
    if not all(str(target).startswith(OURS) for target in named):
        return  # a combiner, a loss or a probe of the user's may look at it
    for key, scorer, discriminator in _unread(plain(config.strategy), "strategy"):
        print(
            f"note: {key}.discriminator={discriminator} is asked of every client, and sent, and "
            f"{key}.scorer={scorer} does not look at it: expected strategy/discriminator=none, or "
            "a scorer that does, such as strategy/scorer=own_probability",
            file=sys.stderr,
        )


def _unread(node: Any, key: str) -> Iterator[tuple[str, str, str]]:
    """Find scorers beside discriminators that they do not look at: key, and what both name."""
    if not isinstance(node, dict):
        return
    scorer, asked = node.get("scorer"), node.get("discriminator")
    if isinstance(scorer, dict) and isinstance(asked, dict) and "_target_" in scorer:
        target = str(scorer["_target_"])
        says = getattr(function_of(f"{key}.scorer", scorer), "for_discriminators", None)
        # Where nobody knows an example all are trusted alike, and by uniform scores they are.
        falls_back = (node.get("ensemble") or {}).get("fallback_below", 1) > 0
        matters = falls_back and target != f"{SHIPPED}uniform"
        if target.startswith(SHIPPED) and says is None and not matters and not _names(node, FIELD):
            yield key, target.rpartition(".")[2], str(asked["_target_"]).rpartition(".")[2]
    for name, inner in node.items():
        yield from _unread(inner, f"{key}.{name}")


def _names(node: Any, value: str) -> bool:
    """Tell whether a value stands anywhere in a node, such as among an objective's anchors."""
    if isinstance(node, dict | list):
        return any(
            _names(each, value) for each in (node.values() if isinstance(node, dict) else node)
        )
    return bool(node == value)
