"""Federations without a server from the command line: the README's lines, resume from the disk."""

import json
from pathlib import Path

import pytest

from tests.commands import run_py

QUICK = [
    "sim=inline", "clients.num_clients=6", "clients.training.epochs=1", "data.limit=600",
    "availability=flaky", "availability.late_probability=0.4", "tracking.figures_every=1",
]  # fmt: skip
METHODS = {
    "gossip": [
        "strategy=gossip", "topology=epidemic", "strategy.sweeps=2", "strategy.distil.epochs=2",
    ],
    "dpsgd": ["strategy=dpsgd", "topology=ring", "clients=same", "student=mlp"],
    "push_sum": ["strategy=push_sum", "topology=epidemic", "clients=same", "student=mlp"],
    "proxyfl": ["experiment=proxyfl"],
}  # fmt: skip
SAME = ("metrics.jsonl", "clients.parquet")


def run(folder: Path, *words: str) -> None:
    done = run_py(*words, f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_run_without_a_server_is_resumed_from_its_folder(method: str, tmp_path: Path) -> None:
    words = [*QUICK, *METHODS[method]]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, *words, "rounds=4")
    run(parts, *words, "rounds=2", "checkpoint_every=1")
    done = run_py(f"resume={parts}", "rounds=4")
    assert done.returncode == 0, done.stderr[-3000:]
    for name in SAME:
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    result = json.loads((whole / "result.json").read_text())
    assert result["messages"] > 0
    assert result["edge_bytes"] > 0
    assert result["lost_messages"] > 0
    assert (result["student_accuracy"] is None) == (method == "gossip")
    assert (whole / "student.safetensors").exists() == (method != "gossip")
