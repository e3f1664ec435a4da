"""Flower's partitioners as they are, and anybody's that look like them."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from clients.partition import from_partitioner
from conf.errors import ConfigError
from conf.trust import require_trusted
from stillhouse import wiring
from tests.tiny_runs import FEW, composed

hf: Any = pytest.importorskip("datasets")
flower: Any = pytest.importorskip("flwr_datasets.partitioner")

LABELS = np.array([2, 0, 1, 2, 0, 1, 2, 2])
RNG = np.random.default_rng(0)


class OneClassEach:
    """Client k has the examples of class k, last first."""

    dataset: Any = None

    def __init__(self, num_partitions: int = 3) -> None:
        self.num_partitions = num_partitions

    def load_partition(self, partition_id: int) -> Any:
        rows = np.flatnonzero(np.array(self.dataset["label"][:]) == partition_id)
        return self.dataset.select(rows[::-1])


def test_a_client_has_what_its_partition_has_and_the_partitioner_stays_as_it_was() -> None:
    ours = OneClassEach()
    for _ in range(2):
        found = from_partitioner(LABELS, 3, RNG, partitioner=ours)
        assert [own.tolist() for own in found] == [[1, 4], [2, 5], [0, 3, 6, 7]]
    assert ours.dataset is None


def test_what_nobody_gets_is_nobodys() -> None:
    found = from_partitioner(LABELS, 2, RNG, partitioner=OneClassEach(2))
    assert [own.tolist() for own in found] == [[1, 4], [2, 5]]


def test_flowers_own_cuts_as_it_does_alone() -> None:
    labels = np.random.default_rng(1).integers(0, 4, 200)
    made = [
        flower.DirichletPartitioner(5, "label", 0.5, min_partition_size=1, seed=3) for _ in range(2)
    ]
    made[0].dataset = hf.Dataset.from_dict({"label": labels, "index": np.arange(200)})
    alone = [sorted(made[0].load_partition(k)["index"][:]) for k in range(5)]
    found = from_partitioner(labels, 5, RNG, partitioner=made[1])
    assert [own.tolist() for own in found] == alone
    with pytest.raises(
        ValueError, match=r"partitioner\.num_partitions=5, expected 4, clients\.num"
    ):
        from_partitioner(labels, 4, RNG, partitioner=made[1])
    other = flower.DirichletPartitioner(5, "kind", 0.5)
    with pytest.raises(ValueError, match=r"partitioner: ValueError: Column \(kind\) not in table"):
        from_partitioner(labels, 5, RNG, partitioner=other)


def test_a_config_names_one_and_its_seed_is_its_own() -> None:
    def cut(seed: int) -> list[list[int]]:
        partitioner = "{_target_: flwr_datasets.partitioner.DirichletPartitioner, alpha: 50, "
        partitioner += "num_partitions: '${clients.num_clients}', partition_by: label,"
        words = ("partition=flower", f"partition.partitioner={partitioner} seed: {seed}}}")
        config = composed((*(word for word in FEW if word != "partition=iid"), *words))
        clients = wiring.populate(config, wiring.load_splits(config))
        return [own.tolist() for own in clients.partitions]

    assert cut(1) == cut(1) != cut(2)


def test_a_run_folder_may_name_a_partitioner_of_flowers_there_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(place: str, target: str) -> bool:
        try:
            require_trusted(place, {"_target_": target}, [])
        except ConfigError:
            return True
        return False

    package, place = "flwr_datasets.partitioner", "partition.partitioner"
    assert not refused(place, f"{package}.DirichletPartitioner")
    assert not refused("partition.of.partitioner", f"{package}.DirichletPartitioner")
    for other in ("partitioner.Partitioner", "partitioner", "", "np"):
        assert refused(place, f"{package}.{other}")
    assert refused("partition", f"{package}.DirichletPartitioner")
    assert refused(place, "torch.optim.SGD")
    monkeypatch.setitem(sys.modules, package, None)
    assert refused(place, f"{package}.DirichletPartitioner")


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'stillhouse\[datasets\]'"):
        from_partitioner(LABELS, 3, RNG, partitioner=OneClassEach())
