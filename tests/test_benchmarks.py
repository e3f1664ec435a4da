"""The benchmarks do the same work everywhere, and what they count is what they say."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import floor, ours, plain, work
from benchmarks.memory import MARK, PeakMemory, processes_of, proportional_bytes, wait_until_gone
from benchmarks.profile import BEGINNING, PHASES, Phases, owner_of
from benchmarks.rounds import AGREE, Found, distances, summary
from benchmarks.work import Clock, Federation, Work
from tests.commands import run_module
from tests.places import ROOT

SCRIPTS = (
    "floor",
    "flower",
    "gpu",
    "gpu_check",
    "gpu_pack",
    "idle",
    "ours",
    "pfl",
    "plain",
    "probes",
    "profile",
    "results",
    "rounds",
)


def tiny(model: str, rounds: int = 2) -> Work:
    return Work(model, clients=4, cohort=2, rounds=rounds, smooth=True)


def found(flat: np.ndarray, seconds: list[float] | None = None) -> Found:
    return Found(seconds or [], 1.0, flat, 0)


def flattened(parameters: work.Parameters) -> np.ndarray:
    return np.concatenate([parameters[name].ravel() for name in sorted(parameters)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("work")
    work.write_data(tiny("lr"), place)
    return place


@pytest.mark.parametrize("model", work.MODELS)
def test_every_system_ends_in_the_same_parameters(model: str, folder: Path) -> None:
    todo, clocks = tiny(model), [Clock() for _ in range(3)]
    federation = work.read_data(folder)
    bare, seconds = floor.run(todo, federation, clocks[1], exchange=lambda total: None)
    flat = {
        "plain": found(flattened(plain.run(todo, federation, clocks[0]))),
        "floor": found(flattened(bare)),
        "ours": found(flattened(ours.run(todo, folder, clocks[2], None, group_size=2))),
    }
    apart = distances(flat, todo)
    assert apart["plain"] == 0
    assert max(apart.values()) < AGREE
    assert len(seconds) == 2
    assert [len(clock.ticks) for clock in clocks] == [3, 3, 3]


def test_two_processes_of_the_floor_train_the_whole_cohort(folder: Path) -> None:
    todo = tiny("lr")
    expected, _ = floor.run(todo, work.read_data(folder), Clock(), exchange=lambda total: None)
    clock = Clock()
    parameters, seconds = floor.run_processes(todo, folder, clock, workers=2)
    flat = {"one": found(flattened(expected)), "two": found(flattened(parameters))}
    assert distances(flat, todo)["two"] < AGREE
    assert len(seconds) == 2
    assert len(clock.ticks) == 3


def test_a_system_that_trains_in_another_order_is_told_apart(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    todo, federation = tiny("mlp"), work.read_data(folder)
    right = plain.run(todo, federation, Clock())
    batches = work.batches_of
    monkeypatch.setattr(plain, "batches_of", lambda fed, r, k: batches(fed, r + 1, k))
    wrong = plain.run(todo, federation, Clock())
    flat = {"right": found(flattened(right)), "wrong": found(flattened(wrong))}
    assert distances(flat, todo)["wrong"] > 100 * AGREE


def test_distance_is_relative_to_the_way_moved() -> None:
    todo = tiny("lr")
    initial = work.parameters_of(work.initial_model(todo, channels_last=False))
    start = np.concatenate([initial[name].ravel() for name in sorted(initial)])
    moved = np.zeros_like(start)
    moved[:2] = 3, 4
    other = np.zeros_like(start)
    other[:2] = 3, 4.5
    apart = distances({"a": found(start + moved), "b": found(start + other)}, todo)
    assert apart["b"] == pytest.approx(0.5 / 5, rel=1e-5)


def test_clients_have_fifty_to_a_hundred_examples_and_no_batch_of_one(folder: Path) -> None:
    federation = work.read_data(folder)
    sizes = [len(partition) for partition in federation.partitions]
    assert len(sizes) == 4
    assert sum(sizes) == len(federation.dataset)
    assert all(50 <= size <= 100 for size in sizes)
    assert len(set(sizes)) > 1
    for k in range(4):
        cut = list(work.batches_of(federation, 1, k))
        assert sorted(np.concatenate(cut)) == sorted(federation.partitions[k])
        assert all(2 <= len(batch) <= 32 for batch in cut)


def test_cohorts_are_split_longest_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partitions = [np.arange(n) for n in (50, 90, 60, 70, 80)]
    monkeypatch.setattr(work, "cohort_of", lambda todo, r: [0, 1, 2, 3, 4])
    federation = Federation(work.read_data(folder).dataset, partitions)
    # 90 | 80;  90 | 80 + 70;  90 + 60 | 150;  the tie goes to the first: 150 + 50 | 150
    assert work.shares(tiny("lr"), federation, 2, 1) == [[1, 2, 0], [4, 3]]


def test_smoothed_models_have_no_edges() -> None:
    network = work.smoothed((1, 28, 28), 10, model="cnn")
    kinds = [type(module).__name__ for module in network.modules()]
    assert kinds.count("Softplus") == 3
    assert kinds.count("AvgPool2d") == 2
    assert not {"ReLU", "MaxPool2d"} & set(kinds)


def test_the_summary_takes_ratios_within_a_repetition_and_drops_first_rounds() -> None:
    flat = np.zeros(1)
    timed = [
        {"slow": found(flat, [9, 4, 4]), "ours": found(flat, [9, 2, 2])},
        {"slow": found(flat, [9, 30, 30]), "ours": found(flat, [9, 10, 10])},  # a busy machine
        {"slow": found(flat, [9, 4, 4]), "ours": found(flat, [9, 2, 2])},
    ]
    apart = {"slow": 0.0, "ours": 1e-7}
    todo = Work("lr", 10, 8, 3)
    slow, mine = summary(["slow", "ours"], "ours", todo, timed, timed[0], apart)
    assert (slow["seconds"], mine["seconds"]) == (4, 2)
    assert (slow["ratio"], mine["ratio"]) == (2, 1)
    assert slow["range_s"] == [4, 30]
    assert mine["clients_per_s"] == 4


def test_memory_of_marked_processes_is_summed_while_they_live() -> None:
    code = "import time; held = b'x' * 50_000_000; print('held', flush=True); time.sleep(60)"
    env = {**os.environ, MARK: "test_benchmarks"}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            assert processes_of("test_benchmarks") == [process.pid]
            assert 50e6 < proportional_bytes(process.pid) < 100e6
            with PeakMemory("test_benchmarks", every_s=0.01) as memory:
                deadline = time.monotonic() + 30
                while not memory.peak_bytes and time.monotonic() < deadline:
                    time.sleep(0.01)
            assert 50e6 < memory.peak_bytes < 100e6
            with pytest.raises(TimeoutError, match=str(process.pid)):
                wait_until_gone("test_benchmarks", timeout_s=0)
        finally:
            process.kill()
    wait_until_gone("test_benchmarks", timeout_s=30)
    assert proportional_bytes(process.pid) == 0


def test_phases_give_time_to_the_outermost_and_forget_the_first_round() -> None:
    phases = Phases()
    inner = phases.timed("inner", lambda: time.sleep(0.01))
    outer = phases.timed("outer", lambda: inner())
    phases.begin_round()
    inner()
    phases.begin_round()
    outer()
    outer()
    assert dict(phases.calls) == {"outer": 2}
    assert phases.seconds["outer"] >= 0.02
    assert "| outer |" in phases.table()


def test_a_phase_that_pulls_its_work_does_not_get_the_time_of_that() -> None:
    phases = Phases()
    made = phases.timed("training", lambda: time.sleep(0.05))
    folded = phases.timed("combining", lambda items: [None for _ in items])
    phases.begin_round()
    phases.begin_round()
    folded(made() for _ in range(2))
    assert phases.seconds["training"] >= 0.1
    assert phases.seconds["combining"] < 0.05
    assert dict(phases.calls) == {"training": 2, "combining": 1}


def test_a_phase_names_functions_that_exist() -> None:
    with pytest.raises(SystemExit, match=r"clients\.training\.gone"):
        owner_of("clients.training.gone")
    owner, last = owner_of("sim.engine.grid.PoolGrid.begin_round")
    assert (owner.__name__, last) == ("PoolGrid", "begin_round")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script: str) -> None:
    if script == "floor":  # one in an interpreter that has imported nothing
        command = [sys.executable, "-m", "benchmarks.floor", "--help"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    else:
        done = run_module(f"benchmarks.{script}", "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")


def test_the_profile_names_functions_that_there_are() -> None:
    """`python -m benchmarks.profile` ends where one was renamed."""
    for name in (BEGINNING, *(name for names in PHASES.values() for name in names)):
        owner_of(name)
