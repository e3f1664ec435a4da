"""The distillation benchmark: systems do the same work, a row says what was found, bands hold."""

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import distil_ours, distil_plain, distil_work, systems
from benchmarks.distil import Found, chosen, outside, phases_of, summary, table
from benchmarks.distil_work import Watch, Work
from benchmarks.memory import cpu_seconds
from benchmarks.results import heading
from benchmarks.systems import System, available
from tests.commands import run_module

TINY = Work(clients=2, proxy=300, rounds=2, private=1000, source="digits")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let everybody learn enough in two rounds of a few steps for accuracies to say something.

    On one thread: two, with other tests beside them, wait for each other in every layer.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for module in (distil_plain, distil_ours):
        monkeypatch.setattr(module, "LOCAL_BATCH", 4)
        monkeypatch.setattr(module, "LEARNING_RATE", 0.2)
        monkeypatch.setattr(module, "STUDENT_LEARNING_RATE", 0.01)
    yield
    torch.set_num_threads(threads)


def plain(work: Work) -> tuple[Watch, list[float]]:
    watch = Watch()
    return watch, distil_plain.run(work, distil_work.federation_of(work), watch)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("networks", "protocol"), [("cnn", "digest"), ("mixed", "one-way")])
def test_the_plain_loop_and_ours_teach_the_same_student(networks: str, protocol: str) -> None:
    work = replace(TINY, networks=networks, protocol=protocol)
    watch, accuracy = plain(work)
    ours, ours_accuracy, sent = distil_ours.run(work, 0, teachers=False)
    assert ours_accuracy == pytest.approx(accuracy, abs=0.01)
    assert accuracy[-1] > 0.2, "nothing was learnt, and any two systems agree on that"
    assert [len(each.ticks) for each in (watch, ours)] == [2, 2]
    clients = {"train", "answer"} | ({"digest"} if work.digests else set())
    assert watch.phases[1].keys() == clients | {"distil", "evaluate"}
    assert ours.phases[1].keys() == {"clients", "distil", "evaluate"}
    answers = work.clients * work.proxy * 10 * 4
    assert sent > answers + (answers / 2 if work.digests else 0)


@pytest.mark.usefixtures("quick")
def test_digesting_changes_what_the_student_learns() -> None:
    _, without = plain(TINY)
    _, digested = plain(replace(TINY, protocol="digest"))
    assert digested[0] == without[0]
    assert digested[1] != without[1]


@pytest.mark.parametrize("name", distil_work.MODELS)
def test_a_network_as_tutorials_write_it_answers_the_same(name: str) -> None:
    one = distil_work.federation_of(replace(TINY, clients=1))
    ours, theirs = (
        replace(one, architectures=[name], tuned=tuned).network(0).eval() for tuned in (True, False)
    )
    kinds = [type(module).__name__ for module in theirs.modules()]
    assert ("MaxPool" in kinds, "MaxPool2d" in kinds) == (False, name != "mlp")
    images = torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-6)
    assert all(each.is_contiguous() for each in theirs.parameters())


def test_teachers_are_measured_only_where_that_is_asked_for() -> None:
    for teachers, expected in ((True, "Timed"), (False, "StudentOnly")):
        words = distil_ours.overrides(TINY, 2, teachers=teachers)
        assert f"strategy._target_=benchmarks.distil_strategy.{expected}" in words


def test_a_watch_gives_time_to_phases_and_ends_rounds() -> None:
    watch = Watch()
    watch.begin("train")
    time.sleep(0.01)
    watch.begin("distil")
    watch.end_round()
    assert not watch.running
    assert watch.phases[0]["train"] >= 0.01
    assert watch.phases[0].keys() == {"train", "distil"}
    assert len(watch.ticks) == len(watch.cpu) == 1


def test_cpu_seconds_grow_with_work_and_not_with_sleep() -> None:
    before = cpu_seconds(None)
    time.sleep(0.2)
    slept = cpu_seconds(None) - before
    deadline = time.process_time() + 0.2
    while time.process_time() < deadline:
        pass
    assert slept < 0.1
    assert cpu_seconds(None) - before >= 0.15


def found(accuracy: float, *seconds: float) -> Found:
    phases = [{"train": s / 2, "distil": s / 4, "evaluate": s / 4} for s in seconds]
    cpu = [2 * s for s in seconds]
    return Found(list(seconds), cpu, phases, [0.1, accuracy], 4e6, 5_000_000)


def test_a_row_is_the_median_over_repetitions() -> None:
    row = summary("a", [found(0.9, 2, 4), found(0.9, 4, 8)])
    assert (row["seconds"], row["cpu_s"], row["range_s"]) == (4, 8, [3, 6])
    assert row["phases"] == {"train": 2, "distil": 1, "evaluate": 1}
    assert row["accuracy"] == 0.9
    assert "| a | 4.00 (3.00-6.00) | 8.00 | 2.00 | 1.00 | 1.00 | 5 | 4.00 | 0.9000 |" in table(
        [row]
    )


def test_phases_that_a_round_has_not_are_zero_in_it() -> None:
    one = found(0.9, 2)
    other = replace(one, phases=[{"distil": 1.0, "evaluate": 1.0}])
    assert phases_of([one, other])["train"] == 0.5


def test_a_student_outside_the_band_is_told() -> None:
    rows = [summary(name, [found(a, 1)]) for name, a in (("a", 0.9), ("b", 0.871), ("c", 0.86))]
    assert [line.split()[0] for line in outside(rows)] == ["c"]
    assert outside([summary("a", [found(0.9, 1)]), summary("b", [found(float("nan"), 1)])])


def test_systems_that_are_not_there_are_left_out_aloud(capsys: pytest.CaptureFixture[str]) -> None:
    known = {
        "here": System([], Path(sys.executable)),
        "gone": System([], systems.environment("never-made")),
    }
    assert available(["here", "gone"], known) == ["here"]
    assert "make .venv-never-made" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="expected one of here, gone"):
        available(["other"], known)


def test_what_no_protocol_has_is_refused() -> None:
    digesting = replace(TINY, protocol="digest")
    assert "ours-ray-2-teachers" not in chosen("", digesting)
    with pytest.raises(SystemExit, match="one-way"):
        chosen("ours-ray-2-teachers", digesting)


def test_the_heading_names_cpu_capability_date_and_commit() -> None:
    form = r"CPU: .+; capability: \S+; date: \d{4}-\d\d-\d\d; commit: ([0-9a-f]{7,}\+?|none)"
    assert re.fullmatch(form, heading())


@pytest.mark.parametrize("script", ["distil", "distil_flower", "distil_ours", "distil_plain"])
def test_help(script: str) -> None:
    done = run_module(f"benchmarks.{script}", "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")
