"""Names of one version back: run folders of then go on, own YAML is told of.

Targets were called otherwise, and numbers that are in a part of a strategy now were beside it.
"""

from typing import Any

RENAMED = {
    "clients.corruption": "clients.population.label_conditions",
    "clients.discriminator": "clients.models.discriminator",
    "clients.losses": "clients.training.losses",
    "clients.messages.fields": "clients.messages.shipped_fields",
    "clients.peers.heads": "clients.mutual.group_heads",
    "clients.mutual.heads": "clients.mutual.group_heads",
    "clients.peers.messenger": "clients.mutual.messenger",
    "clients.peers.rules": "clients.mutual.rules",
    "clients.population.conditions": "clients.population.label_conditions",
    "clients.population.shapes": "clients.population.shape_plans",
    "clients.population.network_shapes": "clients.population.shape_plans",
    "clients.profiles": "clients.population.profiles",
    "clients.training": "clients.training.loop",
    "sim.pool": "sim.workers.pools",
    "sim.probes": "sim.analysis.probes",
    "sim.ray_pool": "sim.workers.ray_pool",
    "strategies.averaging": "strategies.server.averaging",
    "strategies.combiners": "strategies.aggregation.combiners",
    "strategies.distillation": "strategies.server.distillation",
    "strategies.gossip": "strategies.decentralised.gossip_distillation",
    "strategies.mutual": "strategies.server.mutual",
    "strategies.parameter_gossip": "strategies.decentralised.gossip_averaging",
    "strategies.scorers": "strategies.aggregation.scorers",
    "strategies.teaching.group": "strategies.teaching.student_among_peers",
    "strategies.teaching.group_teaching": "strategies.teaching.student_among_peers",
    "strategies.stages": "strategies.server.sequence",
    "strategies.transfer": "strategies.decentralised.def_kt",
}
"""Modules, old name -> new name; of several old ones the oldest first, by which hashes go."""

PARTS: dict[str, tuple[str, dict[str, str]]] = {
    "ensemble": (
        "strategies.aggregation.ensemble.EnsembleRule",
        {name: name for name in ("temperature", "weight_cap", "fallback_below", "answers")},
    ),
    "proxy_split": (
        "strategies.teaching.proxy_split.ProxySplit",
        {
            "negative_share": "negative_share",
            "proxy_chunks": "chunks",
            "probe_examples": "probe_examples",
        },
    ),
    "teaching": (
        "strategies.teaching.student_among_peers.GroupRecipe",
        {
            name: name
            for name in (
                *("epochs", "batch_size", "update", "refresh_epochs", "taps"),
                *("optimizer", "head_optimizer"),
            )
        },
    ),
    "teachers": ("strategies.teaching.teachers.Teachers", {}),
    "neighbours": ("strategies.decentralised.delivery.Neighbours", {}),
}
"""Parts of strategies: what makes each, and its keys, old name beside it -> new name in it."""

HAVE = {
    "strategies.decentralised.gossip_distillation.Gossip": (
        "ensemble",
        "proxy_split",
        "neighbours",
    ),
    "strategies.server.distillation.DistillationStrategy": ("ensemble", "proxy_split", "teachers"),
    "strategies.server.mutual.MutualStrategy": ("ensemble", "proxy_split", "teachers", "teaching"),
}
"""Which strategies have which."""

MOVED = {old: f"{part}.{new}" for part, (_, keys) in PARTS.items() for old, new in keys.items()}
"""Keys of a strategy, old name -> new name."""

ADDED = {
    "clients.codec": None,
    "clients.codec_down": None,
    "clients.objective": None,
    "clients.shape": None,
    "clients.view": None,
    "data.proxy_condition": None,
    "evaluation.examples": 0,
    "student_threads": None,
}
"""Keys that there were not, and the value that says what was so without them."""

ADDED_TO_PARTS: dict[str, dict[str, Any]] = {
    "proxy_split": {"calibration_share": 0.0, "labelled": False},
    "teaching": {"scheduler": None},
}
"""The same of parts of strategies."""

ADDED_TO_TARGETS: dict[str, dict[str, Any]] = {
    "clients.training.loop.train": {
        "steps": None,
        "drop_last": False,
        "scheduler": None,
        "scheduler_by": "round",
        "stop_below": None,
    },
    "clients.models.discriminator.DiscriminatorRecipe": {"epsilon": None, "delta": 1e-5},
    "strategies.server.averaging.Averaging": {"weigh_by": "examples"},
    "strategies.teaching.selection.random": {"examples": None},
}
"""The same of what a node makes, by its target."""

KEYS = {"clients.corruption": "clients.condition"}
"""Keys of a section, old name -> new name; groups of options are called likewise."""

_BEFORE = {new: old for old, new in reversed(RENAMED.items())}


def new_name(target: str) -> str:
    """Return what a target is called now: itself, if its module has not been renamed."""
    return _moved(target, RENAMED)


def first_name(target: str) -> str:
    """Return what a target was called first, by which the hash of a config knows it."""
    return _moved(new_name(target), _BEFORE)


def new_key(key: str) -> str:
    """Return what a key, or a group of options, is called now: itself, if it is as it was."""
    for old, new in KEYS.items():
        for before, now in ((old, new), (old.replace(".", "/"), new.replace(".", "/"))):
            if key == before or key.startswith(f"{before}."):
                return now + key.removeprefix(before)
    section, _, name = key.rpartition(".")
    moved = name in MOVED and section.split(".")[0] == "strategy"
    return f"{section}.{MOVED[name]}" if moved else key


def old_name_in(said: str) -> str | None:
    """Tell what is called otherwise now of what Hydra says that it does not know; None if nothing.

    It may stand in somebody's YAML: in its defaults, or as a key.
    """
    for old, new in KEYS.items():
        if old.replace(".", "/") in said or f"Key '{old.rpartition('.')[2]}'" in said:
            return f"'{old}' is called {new} now"
    return None


def rename_keys(content: dict[Any, Any], back: bool = False) -> None:
    """Give keys of sections their new names, in place.

    Args:
        content: A whole config.
        back: Their old ones, for its hash.
    """
    for old, new in KEYS.items():
        section, _, name = (new if back else old).rpartition(".")
        node = content.get(section) if isinstance(content, dict) else None
        if isinstance(node, dict) and name in node:
            node[(old if back else new).rpartition(".")[2]] = node.pop(name)


def put_into_parts(node: dict[Any, Any]) -> None:
    """Give a strategy that was written down one version back its parts, in place.

    Args:
        node: Of the config; one that is no such strategy stays as it is.
    """
    for part in _parts_of(node):
        target, keys = PARTS[part]
        if part not in node:
            inner = {new: node.pop(old) for old, new in keys.items() if old in node}
            node[part] = {"_target_": target, "_partial_": True, **inner}
        if isinstance(node[part], dict) and new_name(str(node[part].get("_target_"))) == target:
            for key, value in ADDED_TO_PARTS.get(part, {}).items():
                node[part].setdefault(key, value)


def take_out_of_parts(node: dict[Any, Any]) -> None:
    """Undo `put_into_parts`, for the hash of a config: it knows numbers where they were first."""
    for key, value in ADDED_TO_TARGETS.get(new_name(str(node.get("_target_"))), {}).items():
        if key in node and node[key] == value:
            del node[key]
    for part in _parts_of(node):
        target, keys = PARTS[part]
        inner = node.get(part)
        if isinstance(inner, dict) and new_name(str(inner.get("_target_"))) == target:
            before = {new: old for old, new in keys.items()}
            said = {"_target_": target, "_partial_": True, **ADDED_TO_PARTS.get(part, {})}
            node |= {
                before.get(k, k): value
                for k, value in inner.items()
                if k not in said or (k in ADDED_TO_PARTS.get(part, {}) and value != said[k])
            }
            del node[part]


def _parts_of(node: dict[Any, Any]) -> tuple[str, ...]:
    target = node.get("_target_")
    return HAVE.get(new_name(target), ()) if isinstance(target, str) else ()


def _moved(target: str, modules: dict[str, str]) -> str:
    module, dot, name = target.rpartition(".")
    return modules.get(module, module) + dot + name
