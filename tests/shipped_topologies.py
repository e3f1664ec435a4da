"""Every topology that is shipped."""

from collections.abc import Callable
from functools import cache

from conf.building import instantiate
from conf.schema import check_targets
from sim.topology.topology import Topology
from tests.composing import composed
from tests.places import ROOT

SHIPPED = sorted(
    path.stem for path in (ROOT / "conf" / "topology").glob("*.yaml") if path.stem != "none"
)


@cache
def chosen(name: str, *overrides: str) -> Callable[..., Topology]:
    """What the run will get: composing takes 0.1 s, so each choice is made once."""
    config = composed(f"topology={name}", *overrides)
    check_targets(config, "topology")
    bound: Callable[..., Topology] = instantiate(config.topology)
    return bound


def shipped(name: str, num_peers: int, *overrides: str, seed: int = 0) -> Topology:
    return chosen(name, *overrides)(num_peers=num_peers, seed=seed)
