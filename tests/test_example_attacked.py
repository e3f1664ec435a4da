"""The example of an asking probe: a user's function goes to where networks are."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from tests.commands import run_py
from tests.example_runs import EXAMPLES, both_pools, imported
from tests.federations import SEED
from tests.quick_runs import QUICK, federated
from tests.tracked_runs import events_of

WORDS = ["--config-dir", str(EXAMPLES / "attacked"), "probes=attacked", *QUICK, "partition=iid",
         "clients.training.epochs=6", "strategy.distil.epochs=10"]  # fmt: skip
NAMES = ("plain_accuracy", "attacked_accuracy", "noised_accuracy")


class Signs:
    """Draws what it was made with."""

    def __init__(self, signs: list[list[float]]) -> None:
        self.signs = signs

    def choice(self, among: Any, shape: Any) -> Any:
        assert shape == (2, 2)
        return torch.tensor(self.signs, dtype=torch.float64).numpy()


def test_the_attack_on_a_linear_network_by_hand() -> None:
    """Logits (x_1, x_2): class 0 loses by a step (-, +), class 1 by (+, -)."""
    network = nn.Linear(2, 2, bias=False)
    network.weight.data = torch.eye(2)
    inputs, labels = torch.tensor([[1.0, 0.5], [0.0, 4.0]]), torch.tensor([0, 1])
    for epsilon, expected in ((0.0, (1.0, 1.0, 1.0)), (0.5, (1.0, 0.5, 1.0)), (3.0, (1, 0, 0.5))):
        draws = Signs([[-1.0, -1.0], [1.0, -1.0]])
        found = imported("attacked").attacked(
            network, inputs.clone(), labels, rng=draws, epsilon=epsilon
        )
        assert tuple(float(found[name]) for name in NAMES) == expected


@pytest.mark.slow
def test_both_pools_and_a_resumed_run_find_the_same_and_the_student_is_nobodys(
    tmp_path: Path,
) -> None:
    runs = both_pools(
        tmp_path, [*WORDS, "rounds=3"], "attacked.attacked", still="probes.attacked.of.epsilon=0.0"
    )
    lines = {
        name: [json.loads(x) for x in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in runs
    }
    means = [[line["clients"][name]["mean"] for name in NAMES] for line in lines["inline"]]
    for plain, attacked, noised in means:
        assert attacked < noised
        assert attacked < plain - 0.05
    assert len({attacked for _, attacked, _ in means}) == 3  # from round to round
    student = [line["probes"]["student_attacked_accuracy"] for line in lines["inline"]]
    assert student[-1] < lines["inline"][-1]["probes"]["student_plain_accuracy"]
    shown, of_student = (
        set(events_of(tmp_path / "inline", curve).Tags()["scalars"]) for curve in ("", "student")
    )
    assert {f"8 bands/{name}/mean" for name in NAMES} <= shown
    assert {f"3 drift/{name}" for name in NAMES} <= of_student
    for line in lines["still"]:
        assert len({line["clients"][name]["mean"] for name in NAMES}) == 1
    # Nobody learns from it: but for these columns a run is as one without.
    without = [word for word in WORDS if word != "probes=attacked"]
    plain = federated(tmp_path / "without", *without, f"seed={SEED}", "rounds=3")
    for what in ("student_sha256", "request_bytes", "reply_bytes", "failures"):
        assert plain[what] == runs["inline"][what]
    table = pq.read_table(tmp_path / "inline" / "clients.parquet")
    assert table.drop_columns([*NAMES]).equals(
        pq.read_table(tmp_path / "without" / "clients.parquet")
    )


def test_what_cannot_run_is_refused_before_the_folder_is_begun(tmp_path: Path) -> None:
    words = [*WORDS, "sim=inline", f"hydra.run.dir={tmp_path / 'run'}"]
    done = run_py(*words, "probes.attacked.of.epsilon=null")
    assert done.returncode == 1
    assert "error: probes.attacked: TypeError: " in done.stderr
    assert "tried on two examples, by architecture 'logistic_regression'" in done.stderr
    assert not (tmp_path / "run" / "config.yaml").exists()
