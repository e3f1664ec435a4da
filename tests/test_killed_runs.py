"""A killed run goes on and ends with the bits of one that was not."""

import json
import signal
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pyarrow.parquet as pq
import pytest

from sim.tracking.run_folder import METRICS
from tests.commands import run_py
from tests.quick_runs import QUICK, hashes
from tests.tracked_runs import events_of

RULES = '''
"""A probe that kills the driver in a round of the user's choice, and a scorer."""
import os, signal

def deadly(view):
    if view.server_round == int(os.environ.get("KILL_IN_ROUND", 0)):
        os.kill(os.getpid(), signal.SIGKILL)
    return {}

def sure(teachers):
    return teachers.logits.softmax(-1).amax(-1)
'''
DEADLY = "+probes.deadly={_target_: my_rules.deadly, _partial_: true}"
TRUSTED = "resume_targets=[my_rules.deadly,my_rules.sure]"
SAME = ("student.safetensors", METRICS, "clients.parquet", "failures.jsonl",
        "partition_summary.json")  # fmt: skip


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    (folder / "strategy" / "scorer").mkdir(parents=True)
    text = "_target_: my_rules.sure\n_partial_: true\n"
    (folder / "strategy" / "scorer" / "sure.yaml").write_text(text)
    (folder / "my_rules.py").write_text(RULES)
    return folder


def run(mine: Path, *args: str, kill_in_round: int = 0) -> CompletedProcess[str]:
    return run_py("--config-dir", str(mine), *args, cwd=mine, KILL_IN_ROUND=str(kill_in_round))


def begun(mine: Path, folder: Path, *args: str, **options: Any) -> int:
    given = [*QUICK, "strategy/scorer=sure", DEADLY, f"hydra.run.dir={folder}", *args]
    return run(mine, *given, **options).returncode


@pytest.fixture(scope="module")
def undisturbed(mine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four rounds at a stretch, without checkpoints."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert begun(mine, folder, "sim=inline", "rounds=4") == 0
    assert not (folder / "checkpoint").exists()
    return folder


def assert_equal_runs(resumed: Path, undisturbed: Path) -> None:
    results = [json.loads((f / "result.json").read_text()) for f in (resumed, undisturbed)]
    for result in results:
        del result["wall_time_s"]
    assert hashes(results[0]) == hashes(results[1])
    assert results[0] == results[1]
    for name in SAME:
        assert (resumed / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_killed_in_mid_round_and_resumed_with_more_rounds(
    mine: Path, undisturbed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    killed = begun(
        mine, folder, "sim=inline", "rounds=2", "checkpoint_every=1", kill_in_round=2
    )  # its student has learned in round 2, nobody was evaluated
    assert killed == -signal.SIGKILL
    assert (
        pq.read_table(folder / "clients.parquet").num_rows == 5
    )  # as of round 1, with its figures
    with (folder / METRICS).open("a") as file:
        file.write('{"round": 2, "stude')  # as if killed in the middle of a line
    done = run(mine, f"resume={folder}", "rounds=4", TRUSTED)
    assert done.returncode == 0, done.stderr
    assert "goes on after round 1" in done.stdout
    assert_equal_runs(folder, undisturbed)
    assert "rounds: 4" in (folder / "config.yaml").read_text()

    again = run(mine, f"resume={folder}", TRUSTED)  # all is done: the same result, once more
    assert again.returncode == 0, again.stderr
    assert_equal_runs(folder, undisturbed)
    assert pq.read_table(folder / "clients.parquet").num_rows == 4 * 5


@pytest.mark.slow  # two Rays; inline it is above
def test_killed_on_ray_between_checkpoints_and_resumed(
    mine: Path, undisturbed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    args = ["sim=ray", "sim.workers=2", "rounds=4", "checkpoint_every=2"]
    assert begun(mine, folder, *args, kill_in_round=4) == -signal.SIGKILL
    before = (folder / "config.yaml").read_bytes()
    assert len((folder / METRICS).read_text().splitlines()) == 3  # and the checkpoint is of 2
    done = run(mine, f"resume={folder}", "sim.workers=1", TRUSTED)
    assert done.returncode == 0, done.stderr
    assert "goes on after round 2" in done.stdout
    assert_equal_runs(folder, undisturbed)
    changed = (folder / "config.yaml").read_bytes().replace(b"  workers: 1", b"  workers: 2")
    assert changed == before
    shown = events_of(folder, "student").Scalars("1 learning/accuracy")
    steps = [event.step for event in shown]
    assert steps == [1, 2, 3, 4]  # the third was written twice


def test_what_cannot_be_resumed_is_said_in_one_line(
    mine: Path, undisturbed: Path, tmp_path: Path
) -> None:
    before = {name: (undisturbed / name).read_bytes() for name in SAME}
    for args, message in (
        ([f"resume={undisturbed}", TRUSTED], "checkpoint: no checkpoint there"),
        ([f"resume={undisturbed}"], "strategy.scorer._target_=my_rules.sure: not run because"),
        ([f"resume={undisturbed}", TRUSTED, "seed=1"], "seed=...: a resumed run keeps its config"),
        ([f"resume={tmp_path / 'typo'}"], "no run folder, it has no config.yaml"),
    ):
        done = run(mine, *args)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert before == {name: (undisturbed / name).read_bytes() for name in SAME}
    assert not (tmp_path / "typo").exists()
