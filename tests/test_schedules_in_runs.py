"""A schedule by rounds holds for all that is learned in a round, whoever learns it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from clients.models.factory import parameters_of
from conf.errors import Stopped
from tests.commands import run_py
from tests.federations import tiny_clients, trainer
from tests.places import ROOT
from tests.quick_runs import federated

ENDED = "{_target_: torch.optim.lr_scheduler.StepLR, _partial_: true, step_size: 1, gamma: 0.0}"
"""From round 2 on nobody learns anything."""

QUICK = ["data=blobs", "partition=iid", "clients.num_clients=4", "clients.training.epochs=1",
         "student=mlp", "student.hidden=[4]", "clients.architectures.mlp.model.hidden=[6]",
         "strategy.distil.epochs=2"]  # fmt: skip
CLIENTS, STUDENT = (f"{key}.scheduler={ENDED}" for key in ("clients.training", "strategy.distil"))


def accuracies(folder: Path) -> Any:
    """Return each client's accuracy in each round [R, K]."""
    table = pq.read_table(folder / "clients.parquet").to_pandas()
    return table.pivot(index="round", columns="client", values="accuracy").to_numpy()


def test_a_student_learns_nothing_at_a_rate_of_0(tmp_path: Path) -> None:
    words = ["strategy=distillation", *QUICK, STUDENT]
    one = federated(tmp_path / "one", *words, "rounds=1")
    two = federated(tmp_path / "two", *words, "rounds=2")
    assert one["student_sha256"] == two["student_sha256"]
    on = federated(tmp_path / "on", *words[:-1], "rounds=2")
    assert on["student_sha256"] != two["student_sha256"]


def test_nor_do_clients_whose_parameters_are_averaged(tmp_path: Path) -> None:
    words = ["strategy=averaging", "clients=same", "data=blobs", "clients.num_clients=4",
             "clients.training.epochs=1"]  # fmt: skip
    one = federated(tmp_path / "one", *words, "rounds=1", CLIENTS)
    two = federated(tmp_path / "two", *words, "rounds=2", CLIENTS)
    one_by_one = federated(
        tmp_path / "alone", *words, "rounds=2", CLIENTS, "clients.together=false"
    )
    on = federated(tmp_path / "on", *words, "rounds=2")
    assert one["student_accuracy"] == two["student_accuracy"] == one_by_one["student_accuracy"]
    assert on["student_sha256"] != two["student_sha256"]


@pytest.mark.parametrize(
    "method",
    [
        ["strategy=distillation", "strategy.feed_back=true", CLIENTS],
        ["strategy=gossip", "topology=ring", CLIENTS, STUDENT],
    ],
    ids=["feed_back", "gossip"],
)
def test_nor_do_those_who_digest(method: list[str], tmp_path: Path) -> None:
    federated(tmp_path / "run", *method, *QUICK, "rounds=2")
    first, second = accuracies(tmp_path / "run")
    np.testing.assert_array_equal(first, second)
    plain = [word for word in method if "scheduler" not in word]
    federated(tmp_path / "on", *plain, *QUICK, "rounds=2")
    first, second = accuracies(tmp_path / "on")
    assert (first != second).any()


def test_nor_does_a_handler_of_one_client_at_a_time() -> None:
    how = trainer()
    how.keywords["scheduler"] = lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.0)
    clients = tiny_clients(train=how)
    for server_round, learns in ((1, True), (2, False)):
        network = clients.place("cpu").networks.of(clients.architectures[0])
        before = {name: array.copy() for name, array in parameters_of(network).items()}
        clients.learn(network, 0, server_round)
        after = parameters_of(network)
        assert any((after[name] != before[name]).any() for name in before) is learns


# --- what is refused ---


@pytest.mark.parametrize("key", ["clients.training", "strategy.distil"])
def test_a_schedule_that_wants_a_loss_is_refused_before_anybody_trains(
    key: str, tmp_path: Path
) -> None:
    plateau = "{_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, _partial_: true}"
    with pytest.raises(Stopped, match=rf"{key}.scheduler: expected one of torch's that goes by tu"):
        federated(tmp_path / "run", "strategy=distillation", *QUICK, f"{key}.scheduler={plateau}")


@pytest.mark.parametrize("word", ["scheduler=" + ENDED, "stop_below=0.1"])
def test_scaffold_counts_steps_of_one_length(word: str, tmp_path: Path) -> None:
    words = [
        "strategy=scaffold",
        "clients=same",
        "clients.training.optimizer.momentum=0",
        "rounds=1",
    ]
    mine = ["--config-dir", str(ROOT / "examples" / "scaffold")]
    done = run_py(*mine, *words, f"clients.training.{word}", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode != 0
    assert "expected optimizer.momentum=0, scheduler=null and stop_below=null" in done.stderr
    assert not (tmp_path / "run").exists()  # before anybody trains
