"""Ctrl-C and SIGTERM end a run after a round that is committed; one run at a time has a folder."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import run as run_py
from conf.errors import ConfigError
from conf.run_lock import LOCK, ClaimFirst, claim, release
from sim.checkpoint.reading import how_to_go_on
from sim.checkpoint.stop_signals import Stop
from sim.tracking.tracker import Tracker
from sim.workers.pools import InlinePool
from tests import commands
from tests.places import ROOT
from tests.quick_runs import hashes
from tests.tiny_runs import BASES, composed

WORDS = ["strategy=fedavg", "clients=same", "student=mlp", "clients.num_clients=3",
         "data.limit=200", "data.test_limit=100", "clients.training.epochs=1", "rounds=4",
         "sim=inline", "probes=none", "partition=iid"]  # fmt: skip

SIGNALS = '''
"""A function of a round's view that sends signals to the driver."""
import os, signal, subprocess, sys

def sends(view, number, server_round, times):
    for _ in range(times if view.server_round == server_round else 0):
        os.kill(os.getpid(), number)
    return {}

def second(view, script, folder):
    """Begin another run in the folder of this one."""
    if view.server_round == 1:
        words = [sys.executable, script, "sim=inline", f"hydra.run.dir={folder}"]
        done = subprocess.run(words, stderr=subprocess.PIPE, text=True)
        with open(f"{folder}-second", "w") as file:
            file.write(f"{done.returncode} {done.stderr}")
    return {}
'''


def run(
    folder: Path, *words: str, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    return commands.run_py("--config-dir", str(folder), *words, cwd=cwd or folder, **env)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    (folder / "my_signals.py").write_text(SIGNALS)
    for name in ("strategies", "clients", "sim"):  # ours are found all the same
        (folder / f"{name}.py").write_text("raise RuntimeError('not ours')\n")
    return folder


def sender(number: int, server_round: int, times: int = 1) -> str:
    about = f"number: {number}, server_round: {server_round}, times: {times}"
    return f"+probes.sends={{_target_: my_signals.sends, _partial_: true, {about}}}"


@pytest.fixture(scope="module")
def undisturbed(mine: Path) -> tuple[str, ...]:
    fresh = {"PYTHONHASHSEED": "0"}  # where nothing of ours has been imported
    done = run(mine, *WORDS, sender(0, 9), f"hydra.run.dir={mine / 'whole'}", **fresh)
    assert done.returncode == 0, done.stderr
    return hashes(json.loads((mine / "whole" / "result.json").read_text()))


# The signal comes in the middle of a round: after training, before anything is aggregated.
@pytest.mark.parametrize(
    ("number", "every", "code"), [(signal.SIGINT, 0, 130), (signal.SIGTERM, 3, 143)]
)
def test_a_run_that_is_told_to_stop_finishes_its_round_and_goes_on_with_the_same_bits(
    mine: Path, undisturbed: tuple[str, ...], number: int, every: int, code: int
) -> None:
    folder = mine / f"stopped-{code}"
    words = [f"checkpoint_every={every}", f"hydra.run.dir={folder}"]
    done = run(mine, *WORDS, sender(number, 2), *words)
    assert done.returncode == code, done.stderr
    assert "stops when this round is done and committed; once more to stop at once" in done.stderr
    last = f"stopped; 2 rounds are kept, go on with: python {ROOT}/run.py resume={folder}"
    assert done.stderr.splitlines()[-1] == last
    assert "Traceback" not in done.stderr
    assert not (folder / "result.json").exists()
    assert not (folder / LOCK).exists()
    again = run(mine, f"resume={folder}", "resume_targets=[my_signals.sends]")
    assert again.returncode == 0, again.stderr
    assert hashes(json.loads((folder / "result.json").read_text())) == undisturbed


@pytest.mark.slow  # a Ray of its own; inline it is above
def test_a_run_over_ray_refuses_a_second_one_and_is_stopped_after_a_round(mine: Path) -> None:
    folder = mine / "over-ray"
    about = f"_partial_: true, script: {ROOT / 'run.py'}, folder: {folder}"
    words = [f"+probes.second={{_target_: my_signals.second, {about}}}", sender(signal.SIGTERM, 2)]
    words += [*WORDS, "sim=ray", "sim.workers=1", "checkpoint_every=1", f"hydra.run.dir={folder}"]
    # From elsewhere: Ray has its workers look for modules in the folder that one stands in first.
    done = run(mine, *words, cwd=mine.parent)
    assert done.returncode == 143, done.stderr
    last = f"stopped; 2 rounds are kept, go on with: python {ROOT}/run.py resume={folder}"
    assert done.stderr.splitlines()[-1] == last
    assert "Traceback" not in done.stderr
    assert "SIGTERM received" not in done.stderr  # Ray's words, 3 s before it aborts the process
    refused = (mine / "over-ray-second").read_text()
    assert refused.startswith(f"1 error: {folder}: another run uses it, process ")
    assert len(refused.splitlines()) == 1
    assert folder.name in (folder / ".hydra" / "overrides.yaml").read_text()
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_folder_with_a_run_is_refused_before_hydra_writes_also_beside_a_resume(
    tmp_path: Path,
) -> None:
    (tmp_path / "config.yaml").touch()
    for resume in (None, str(tmp_path / "another"), str(tmp_path)):
        config = OmegaConf.create({"resume": resume, "hydra": {"run": {"dir": str(tmp_path)}}})
        with pytest.raises(SystemExit, match=f"error: hydra.run.dir={tmp_path}: already holds a r"):
            ClaimFirst().on_run_start(config)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_run_that_is_told_twice_stops_at_once(mine: Path) -> None:
    folder = mine / "twice"
    words = ["checkpoint_every=1", f"hydra.run.dir={folder}"]
    done = run(mine, *WORDS, sender(signal.SIGTERM, 3, times=2), *words)
    assert done.returncode == 143, done.stderr
    assert f"stopped; 2 rounds are kept, go on with: python {ROOT}/run.py" in done.stderr
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_signal_outside_of_rounds_interrupts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told() -> None:
        with Stop().listening(tmp_path):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        told()
    assert ended.value.code == 143
    assert capsys.readouterr().err == "stopped; no round was begun\n"
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(SystemExit):
        told()
    assert "no round is kept that can be gone on from" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_signal_is_heard_though_somebody_kept_its_exception(tmp_path: Path) -> None:
    def told(stop: Stop) -> None:
        with stop.listening(tmp_path), stop.at_the_end_of_rounds():
            assert not stop.asked()
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.asked()
            with suppress(KeyboardInterrupt):  # as a client may
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)
            stop.asked()

    with pytest.raises(SystemExit):
        told(Stop())
    assert how_to_go_on(tmp_path).startswith("no round")


@pytest.mark.parametrize("times", [1, 2])
def test_a_run_that_is_told_after_its_last_round_ends_with_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], times: int
) -> None:
    tell = {Tracker: 1, InlinePool: times - 1}  # each as it is closed

    def closing(kind: type, close: Callable[[Any], None]) -> Callable[[Any], None]:
        def closed(self: Any) -> None:
            for _ in range(tell[kind]):
                os.kill(os.getpid(), signal.SIGTERM)
            close(self)

        return closed

    for kind in tell:
        monkeypatch.setattr(kind, "close", closing(kind, kind.close))  # type: ignore[attr-defined]
    stop, folder = Stop(), tmp_path / "run"
    folder.mkdir()
    with pytest.raises(SystemExit) if times > 1 else nullcontext() as ended, stop.listening(folder):
        run_py.federate(composed(BASES["averaging"]), folder, stop=stop)
    assert ended is None or ended.value.code == 143
    assert (folder / "student.safetensors").exists()
    assert json.loads((folder / "result.json").read_text())["student_sha256"]
    assert (
        "\nends when the results are written; once more to stop at once\n" in capfd.readouterr().err
    )


def test_signals_that_are_ignored_stay_so(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop().listening(tmp_path):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


# --- one run at a time ---

HOLDER = """
import sys, time
from pathlib import Path
from conf.run_lock import claim
claim(Path(sys.argv[1]))
print("has it", flush=True)
time.sleep(100)
"""


def test_a_folder_that_a_live_process_uses_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "has it\n"
        with pytest.raises(
            ConfigError, match=f"{folder}: another run uses it, process {holder.pid}"
        ):
            claim(folder)
        begun = run(tmp_path, *WORDS, f"hydra.run.dir={folder}")
        assert begun.returncode == 1
        assert begun.stderr.startswith(
            f"error: {folder}: another run uses it, process {holder.pid} "
        )
        assert len(begun.stderr.splitlines()) == 1
        assert [path.name for path in folder.iterdir()] == [LOCK]
    finally:
        holder.kill()
        holder.communicate()
    claim(folder)  # the lock died with its process, which had no chance to take the file away
    release(folder)
    assert list(folder.iterdir()) == []


def test_a_resume_of_a_folder_in_use_is_refused(mine: Path, undisturbed: tuple[str, ...]) -> None:
    claim(mine / "whole", begun=True)
    try:
        done = run(mine, f"resume={mine / 'whole'}", "resume_targets=[my_signals.sends]")
    finally:
        release(mine / "whole")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {mine / 'whole'}: another run uses it, process ")
    assert (mine / "whole" / "result.json").exists()


def test_the_lock_follows_no_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        claim(tmp_path / "run")
    assert precious.read_text() == "mine"


def test_a_place_that_cannot_be_written_to_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(tmp_path, *WORDS, f"hydra.run.dir={tmp_path / 'file' / 'run'}")
    assert done.returncode == 1
    where = f"hydra.run.dir={tmp_path / 'file' / 'run'}"
    assert done.stderr == f"error: {where}: cannot be made, or written to: Not a directory\n"


def test_a_lost_quorum_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    words = ["clients.training.optimizer.lr=1e30", "quorum=1.0"]
    done = run(tmp_path, *WORDS, *words, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 3, done.stderr
    assert "quorum is 1.0" in done.stderr
