"""Every option file that is shipped, and what some need beside themselves."""

from tests.places import CONF

REQUIRED = {
    "data=hugging_face": "data.source.path=pets",
    "data=image_folder": "data.source.path=pets",
    "data=npz": "data.source.path=a.npz",
    "data=table": "data.source.path=a.csv",
    "partition=flower": "partition.partitioner={_target_: flwr_datasets.partitioner.IidPartitioner,"
    " num_partitions: 5}",
    "partition=from_file": "partition.path=a.json",
    "topology=from_file": "topology.graph.path=a.csv",
    "proxy=npz": "data.proxy_source.path=a.npz",
}
MUTUAL = {"strategy/rule", "strategy/head"}
"""Groups that only the strategies of mutual learning have."""
OPTIONS = sorted(
    f"{path.parent.relative_to(CONF)}={path.stem}"
    for path in CONF.rglob("*.yaml")
    if path.parent != CONF
)
REQUIRED |= {option: "strategy=mutual" for option in OPTIONS if option.split("=")[0] in MUTUAL}
REQUIRED |= {option: "topology=ring" for option in OPTIONS if option.startswith("topology/")}
