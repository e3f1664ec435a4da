"""Which client owns which training example: index arrays, never copies of data.

Every function takes the labels [n] of the private set, the number of clients K and a random
generator, and returns a `Partition`: sorted indices of each client, every index exactly once.
Which examples of a class a client gets is random, so the order of the input does not matter.
"""

from clients.partition.index_file import from_file
from clients.partition.ownership import Partition
from clients.partition.rules import (
    classes_per_client,
    dirichlet,
    dirichlet_per_client,
    iid,
    quantity_skew,
    shards,
)
from clients.partition.skew import PartitionSummary, summary

__all__ = [
    "Partition",
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
