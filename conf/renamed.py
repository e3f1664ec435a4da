"""Names that targets had one version back: run folders of then go on, own YAML is told of."""

RENAMED = {
    "clients.corruption": "clients.population.conditions",
    "clients.discriminator": "clients.models.discriminator",
    "clients.losses": "clients.training.losses",
    "clients.peers.heads": "clients.mutual.heads",
    "clients.peers.messenger": "clients.mutual.messenger",
    "clients.peers.rules": "clients.mutual.rules",
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
    "strategies.stages": "strategies.server.sequence",
    "strategies.transfer": "strategies.decentralised.def_kt",
}
"""Modules, old name -> new name."""

_BEFORE = {new: old for old, new in RENAMED.items()}


def new_name(target: str) -> str:
    """Return what a target is called now: itself, if its module has not been renamed."""
    return _moved(target, RENAMED)


def first_name(target: str) -> str:
    """Return what a target was called first, by which the hash of a config knows it."""
    return _moved(target, _BEFORE)


def _moved(target: str, modules: dict[str, str]) -> str:
    module, dot, name = target.rpartition(".")
    return modules.get(module, module) + dot + name
