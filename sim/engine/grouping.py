"""Which clients a worker gets at once. The cohort and the config decide, the workers never."""

from collections.abc import Callable, Hashable, Mapping
from itertools import pairwise


def cut_groups(
    kinds: Mapping[int, Hashable], largest: int, cost: Callable[[int], float]
) -> list[list[int]]:
    """Cut clients into groups of one kind, evenly, of members that take about as long.

    Args:
        kinds: Kind of each client, by its id; only clients of one kind can share a group.
        largest: Most members of a group, >= 1.
        cost: Client id -> how long it may take, in any unit.

    Returns:
        Groups of client ids: the longest first, so that workers end together (Graham, "Bounds on
        multiprocessing timing anomalies", 1969), and in a group the longest first.
    """
    costs = {client_id: cost(client_id) for client_id in kinds}
    members: dict[Hashable, list[int]] = {}
    for client_id in sorted(kinds, key=lambda k: (-costs[k], k)):
        members.setdefault(kinds[client_id], []).append(client_id)
    groups = [cut for alike in members.values() for cut in _evenly(alike, largest)]
    return sorted(groups, key=lambda group: (-sum(costs[k] for k in group), group[0]))


def _evenly(members: list[int], largest: int) -> list[list[int]]:
    """Cut a list into as few pieces of at most so many as can be, of sizes that differ by one."""
    pieces = -(-len(members) // largest)
    bounds = [i * len(members) // pieces for i in range(pieces + 1)]
    return [members[start:stop] for start, stop in pairwise(bounds)]
