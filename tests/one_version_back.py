"""Configs as they were written one version back: other targets, and strategies without parts."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from conf.renamed import RENAMED

BESIDE = {
    "ensemble": ("temperature", "weight_cap", "fallback_below", "answers"),
}
"""Parts that strategies did not have: their numbers stood beside each other."""


def as_it_was(config: DictConfig) -> DictConfig:
    """Write a config as one version back."""
    content: Any = OmegaConf.to_container(config, resolve=True)
    for node in (content["strategy"], *content["strategy"].values()):
        for part in BESIDE if isinstance(node, dict) else ():
            inner = node.pop(part, {})
            node |= {name: inner[name] for name in BESIDE[part] if name in inner}
    text = OmegaConf.to_yaml(OmegaConf.create(content))
    for old, new in RENAMED.items():
        text = text.replace(f"_target_: {new}.", f"_target_: {old}.")
    before = OmegaConf.create(text)
    assert isinstance(before, DictConfig)
    return before
