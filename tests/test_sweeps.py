"""Sweeps: a job that fails ends no other, and the same folder again runs what is missing."""

import json
from pathlib import Path

import pytest

from conf.run_lock import claim, release
from tests.commands import run_py
from tests.quick_runs import NO_FIGURES

TINY = ["data=blobs", "student=mlp", "clients.num_clients=5", "clients.training.epochs=1",
        "rounds=2", "sim=inline", NO_FIGURES, "checkpoint_every=1",
        "data.proxy_limit=60"]  # fmt: skip


@pytest.mark.timeout(240)
def test_what_fails_is_recorded_and_what_is_missing_is_run_again(tmp_path: Path) -> None:
    """FedAvg cannot have unlike clients; later one run is lost, and one has only begun."""
    words = ["-m", "strategy=distillation,fedavg,dlad", *TINY, f"hydra.sweep.dir={tmp_path}"]
    first = run_py(*words)
    assert first.returncode == 1
    assert "failed: strategy=fedavg " in first.stderr
    assert "set clients=same" in json.loads((tmp_path / "1/FAILED").read_text())["reason"]
    said = (tmp_path / "report.md").read_text()
    assert "1 missing: it failed." in said
    assert "| distillation | student |" in said
    kept = [(tmp_path / k / "result.json").stat().st_mtime_ns for k in "02"]

    (tmp_path / "2/result.json").unlink()
    before = (tmp_path / "2/student.safetensors").read_bytes()
    again = run_py(*words)
    assert again.returncode == 1
    assert f"{tmp_path / '0'}: finished already" in again.stdout
    now = [(tmp_path / k / "result.json").stat().st_mtime_ns for k in "02"]
    assert now[0] == kept[0]
    assert now[1] > kept[1]
    assert (tmp_path / "2/student.safetensors").read_bytes() == before
    assert again.stdout.count("round 1") == 0  # it went on from its last checkpoint

    other = run_py(*words, "seed=1")
    assert other.stderr.count("name another hydra.sweep.dir") == 4  # two told, and once more


def test_a_job_that_another_process_runs_is_left_alone(tmp_path: Path) -> None:
    """The same sweep begun twice: what is there, a user's own file too, stays as it is."""
    job = tmp_path / "0"
    claim(job)
    try:
        (job / "metrics.jsonl").write_text("{}\n")
        (job / "notes.txt").write_text("mine")
        done = run_py("-m", "seed=0", *TINY, f"hydra.sweep.dir={tmp_path}")
        assert done.returncode == 1
        assert "another run uses it" in done.stderr
        assert not (job / "FAILED").exists()
        assert {p.name for p in job.glob("[!.]*")} == {"lock", "metrics.jsonl", "notes.txt"}
    finally:
        release(job)


def test_what_a_dead_run_left_is_taken_away_and_a_users_own_files_are_not(tmp_path: Path) -> None:
    words = ["-m", "seed=0", *TINY, f"hydra.sweep.dir={tmp_path}", "checkpoint_every=0", "rounds=1"]
    assert run_py(*words).returncode == 0
    job = tmp_path / "0"
    bits = (job / "student.safetensors").read_bytes()
    (job / "result.json").unlink()
    (job / "notes.txt").write_text("mine")
    assert run_py(*words).returncode == 0
    assert (job / "student.safetensors").read_bytes() == bits
    assert (job / "notes.txt").read_text() == "mine"
    assert len((job / "metrics.jsonl").read_text().splitlines()) == 1
