"""Which client owns which training example: index arrays, never copies of data.

Every function takes the labels [n] of the private set, the number of clients K and a random
generator, and returns a `Partition`: sorted indices of each client, every index exactly once (but
for those of `imbalance`, which are made of another). Which examples of a class a client gets is
random, so the order of the input does not matter. One of your own may name `ids` [n], `inputs`
[n, ...], as networks see them, and `owners` [n], and is given these too
(`clients.population.plugin_arguments`).
"""

from clients.partition.flat_partition import Partition
from clients.partition.flower import from_partitioner
from clients.partition.imbalance import (
    capped,
    duplicated,
    long_tailed,
    missing_classes,
    step_imbalance,
)
from clients.partition.index_file import from_file
from clients.partition.natural import natural
from clients.partition.power_law import power_law
from clients.partition.rules import (
    classes_per_client,
    dirichlet,
    dirichlet_per_client,
    iid,
    quantity_skew,
    shards,
)
from clients.partition.summary import PartitionSummary, summary

__all__ = [
    "Partition",
    "PartitionSummary",
    "capped",
    "classes_per_client",
    "dirichlet",
    "dirichlet_per_client",
    "duplicated",
    "from_file",
    "from_partitioner",
    "iid",
    "long_tailed",
    "missing_classes",
    "natural",
    "power_law",
    "quantity_skew",
    "shards",
    "step_imbalance",
    "summary",
]
