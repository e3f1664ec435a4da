"""Configs as they were written one version back: other targets, and strategies without parts."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from conf.renamed import ADDED, KEYS, RENAMED

BESIDE = {
    "ensemble": {n: n for n in ("temperature", "weight_cap", "fallback_below", "answers")},
    "proxy_split": {"negative_share": "negative_share", "chunks": "proxy_chunks",
                    "probe_examples": "probe_examples"},
    "teaching": {n: n for n in ("epochs", "batch_size", "update", "refresh_epochs", "taps",
                                "optimizer", "head_optimizer")},
    "teachers": {},
    "neighbours": {},
}  # fmt: skip
"""Parts that strategies did not have: their numbers, by name, stood beside each other."""


def as_it_was(config: DictConfig) -> DictConfig:
    """Write a config as one version back."""
    content: Any = OmegaConf.to_container(config, resolve=True)
    for key in ADDED:
        section, _, name = key.rpartition(".")
        del (content[section] if section else content)[name]
        if section and not content[section]:
            del content[section]
    for old, new in KEYS.items():
        section, _, name = new.rpartition(".")
        content[section][old.rpartition(".")[2]] = content[section].pop(name)
    for node in (content["strategy"], *content["strategy"].values()):
        for part in BESIDE if isinstance(node, dict) else ():
            inner = node.pop(part, {})
            node |= {old: inner[new] for new, old in BESIDE[part].items() if new in inner}
    text = OmegaConf.to_yaml(OmegaConf.create(content))
    for old, new in RENAMED.items():
        text = text.replace(f"_target_: {new}.", f"_target_: {old}.")
    before = OmegaConf.create(text)
    assert isinstance(before, DictConfig)
    return before
