"""The growing networks of examples/: new units change no answer, then they learn."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from clients.models import mlp
from tests.example_runs import EXAMPLES, both_pools, imported

GROWING = ["--config-dir", str(EXAMPLES / "growing"), "clients/shape=growing", "clients=same",
           "student=mlp", "student.hidden=[4]", "partition=iid", "strategy=distillation",
           "clients.num_clients=4", "clients.training.epochs=5"]  # fmt: skip


def test_a_network_that_has_grown_answers_as_before_and_learns_with_all_its_units() -> None:
    growing, network = imported("growing"), mlp((1, 4, 4), 3, hidden=(2, 3))
    images = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    before, old = network(images), [p.detach().clone() for p in network.parameters()]
    plan = {"features.1": np.array(4), "features.3": np.array(3)}
    grown = growing.apply(network, plan)
    torch.testing.assert_close(grown(images), before, rtol=1e-5, atol=1e-5)
    assert [tuple(p.shape) for p in grown.parameters()] == [
        (4, 16), (4,), (3, 4), (3,), (3, 3), (3,)
    ]  # fmt: skip
    assert torch.equal(grown.features[1].weight[:2], old[0])
    assert torch.equal(grown.features[3].weight, torch.cat([old[2], torch.zeros(3, 2)], 1))
    grown(images).sum().backward()
    assert bool((grown.features[3].weight.grad[:, 2:] != 0).any())
    same = [p.detach().clone() for p in growing.apply(grown, plan).parameters()]
    assert all(torch.equal(a, b) for a, b in zip(same, grown.parameters(), strict=True))


def test_only_who_stalls_grows_and_up_to_so_many() -> None:
    growing, network = imported("growing"), mlp((1, 4, 4), 3, hidden=(2, 9))
    numbers = {"plan": {}, "units": 4, "most": 5, "least_gain": 0.5}
    assert growing.choose(network, None, None, losses=[1.0, 0.4], **numbers) == {}
    plan = growing.choose(network, None, None, losses=[1.0, 0.6], **numbers)
    assert {name: int(units) for name, units in plan.items()} == {
        "features.1": 5, "features.3": 9
    }  # fmt: skip


@pytest.mark.slow
def test_growing_clients_learn_more_on_both_pools_and_after_a_resume(tmp_path: Path) -> None:
    words, target = [*GROWING, "rounds=3"], "growing.choose,growing.apply"
    runs = both_pools(tmp_path, words, target, fixed="clients/shape=none")
    grown, fixed = (runs[name]["clients_accuracy"]["mean"] for name in ("inline", "fixed"))
    assert grown > fixed + 0.05
    table = pq.read_table(tmp_path / "ray" / "clients.parquet").to_pandas()
    sizes = table.groupby("round")["parameters"].mean().tolist()
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    usual = pq.read_table(tmp_path / "fixed" / "clients.parquet").to_pandas()
    first, other = (each[each["round"] == 1]["accuracy"] for each in (table, usual))
    np.testing.assert_allclose(first, other, atol=1e-6)  # what has just grown answers as before
