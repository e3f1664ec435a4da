"""Which client owns which training example: index arrays, never copies of data.

Every function takes the labels [n] of the private set, the number of clients K and a random
generator, and returns one sorted index array per client, in which every index occurs exactly once.
Which examples of a class a client gets is random, so the order of the input does not matter.
"""

from clients.partition.counts import PartitionSummary, summary
from clients.partition.index_file import from_file
from clients.partition.rules import (
    classes_per_client,
    dirichlet,
    dirichlet_per_client,
    iid,
    quantity_skew,
    shards,
)

__all__ = [
    "PartitionSummary",
    "classes_per_client",
    "dirichlet",
    "dirichlet_per_client",
    "from_file",
    "iid",
    "quantity_skew",
    "shards",
    "summary",
]
