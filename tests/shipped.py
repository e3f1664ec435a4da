"""What is shipped for federations without a server, found by looking into conf/."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import OmegaConf
from scipy.sparse import csr_array

from clients.signatures import takes
from conf.building import instantiate
from strategies.argument_injection import wants
from tests.parts import loose
from tests.places import CONF

DIFFERENT = 8
"""Rounds until graphs come again: drawing them is what takes long."""

FAULTS: dict[str, dict[str, Any]] = {
    "none": {},
    "drops": {"drop_probability": 0.4},
    "late": {"late_probability": 0.5, "late_rounds": 3},
    "drops and late": {"drop_probability": 0.3, "late_probability": 0.5, "late_rounds": 2},
    "leaving": {"leave_probability": 0.3, "join_probability": 0.5, "present_share": 0.8},
    "asleep, late": {"sleep_probability": 0.3, "late_probability": 0.4, "drop_probability": 0.2},
}
"""Who is missing, and what."""


def names(group: str) -> list[str]:
    """List the options of a group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if path.stem != "none")


TOPOLOGIES, MIXINGS = names("topology"), names("topology/mixing")


def _class_of(strategy: str) -> Any:
    """Return the class that a strategy's file names, or the file that it is made from."""
    node = OmegaConf.load(CONF / "strategy" / f"{strategy}.yaml")
    if "_target_" in node:
        return get_class(node._target_)
    return _class_of(next(each for each in node.defaults if isinstance(each, str)))


def _strategy_of(experiment: str) -> str:
    node = OmegaConf.load(CONF / "experiment" / f"{experiment}.yaml")
    config = OmegaConf.load(CONF / "config.yaml")
    chosen = [each for each in [*config.defaults, *node.defaults] if not isinstance(each, str)]
    of = {key.removeprefix("override /"): each[key] for each in chosen for key in each}
    return str(of["strategy"])


@cache
def serverless() -> list[str]:
    """List the overrides that choose a method without a server: those that want a graph."""
    methods = {f"strategy={name}": name for name in names("strategy")}
    methods |= {f"experiment={name}": _strategy_of(name) for name in names("experiment")}
    kinds = {choice: _class_of(name) for choice, name in methods.items()}
    return [
        choice
        for choice, kind in kinds.items()
        if takes(kind, "mixing") or wants(partial(kind, **loose(kind)), "mixing")
    ]


@cache
def mixings_of(
    name: str, num_peers: int, seed: int, edges: Path
) -> dict[str, Callable[[int], csr_array]]:
    """Make the mixing matrices of a shipped topology with each rule that suits it.

    Args:
        name: Of the topology; directed too if it can be, and random graphs drawn anew each round.
        num_peers: n.
        seed: The run's.
        edges: A list of edges, for topologies that read one.

    Returns:
        Round -> W, by what they are called.
    """
    node: Any = OmegaConf.load(CONF / "topology" / f"{name}.yaml")
    del node["defaults"]
    node.require_connected = False
    if "redraw" in node:
        node.redraw = True
    if OmegaConf.is_missing(node.graph, "path"):
        node.graph.path = str(edges)
    found: dict[str, Callable[[int], csr_array]] = {}
    for directed in (False, True) if "directed" in node.graph else (None,):
        if directed is not None:
            node.graph.directed = directed
        for mixing in MIXINGS:
            node.mixing = OmegaConf.load(CONF / "topology" / "mixing" / f"{mixing}.yaml")
            try:
                topology = instantiate(node)(num_peers=num_peers, seed=seed)
                matrices = [topology.mixing(r + 1) for r in range(DIFFERENT)]
            except ValueError as error:
                if f"{mixing} needs " in str(error):  # the rule says which graphs it is for
                    continue
                raise
            called = f"{name}{' directed' * bool(directed)}, {mixing}, n={num_peers}, seed={seed}"
            found[called] = _cycle(matrices)
    return found


def _cycle(matrices: list[csr_array]) -> Callable[[int], csr_array]:
    return lambda server_round: matrices[(server_round - 1) % len(matrices)]
