"""When a run ends before its last round: the rule by hand, and runs that it ends, on both pools."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf.errors import Stopped
from run import federate
from sim.checkpoint.early_stop import EarlyStop, stop_reason
from sim.errors import NoSuchNumber
from tests.commands import run_py
from tests.composing import composed
from tests.federations import SEED
from tests.quick_runs import NO_FIGURES, federated

TINY = ("data=blobs", "clients.num_clients=5", "clients.training.epochs=1", "data.proxy_limit=60",
        "strategy.distil.epochs=1", NO_FIGURES)  # fmt: skip


@pytest.mark.parametrize(
    ("values", "rule", "why"),
    [
        ([], {"above": 0.0}, ""),
        ([0.5], {"above": 0.5}, ""),
        ([0.6, 0.4], {"above": 0.5}, ""),
        ([0.4, 0.6], {"above": 0.5}, "0.6 is above 0.5"),
        ([0.4, 0.6], {"below": 0.5}, ""),
        ([0.6, 0.4], {"below": 0.5}, "0.4 is below 0.5"),
        ([0.1, 0.3, 0.2], {"patience": 2}, ""),
        ([0.1, 0.3, 0.2, 0.3], {"patience": 2}, "no better than 0.3 for 2 rounds"),
        ([0.1, 0.3, 0.2, 0.4], {"patience": 2}, ""),
        ([3.0, 1.0, 2.0], {"patience": 1, "mode": "min"}, "no better than 1 for 1 rounds"),
        ([3.0, 2.0, 1.0], {"patience": 1, "mode": "min"}, ""),
        ([0.5, 0.9], {}, ""),
    ],
)
def test_when_a_run_may_stop(values: list[float], rule: dict[str, Any], why: str) -> None:
    assert stop_reason(values, **rule) == why


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"above": 0.5}, "stop.above: expected stop.metric too"),
        ({"metric": "student/accuracy"}, "expected stop.above, stop.below or stop.patience"),
        ({"metric": "a", "above": 1.0, "mode": "up"}, "stop.mode=up: expected max or min"),
        ({"metric": "accuracy", "above": 1.0}, "no number of a round; did you mean student/accura"),
        (
            {"metric": "stuent/accuracy", "above": 1.0},
            "no number of a round; they are student/...,",
        ),
    ],
)
def test_a_rule_that_is_none_is_refused(rule: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        EarlyStop(**rule)


def test_a_round_without_the_number_ends_nothing_and_earlier_ones_count() -> None:
    early = EarlyStop("student/accuracy", patience=2)
    lines: list[dict[str, Any]] = [{"round": 1, "student": {"accuracy": 0.5}}]
    lines += [{"round": 2, "student": {"accuracy": 0.4}}, {"round": 3, "student": {}}]
    assert not early.after_round(lines)  # as after a resume
    lines.append({"round": 4, "student": {"accuracy": 0.5}})
    assert early.after_round(lines)
    assert early.reason == "student/accuracy: no better than 0.5 for 2 rounds"


def lines_of(values: list[float]) -> list[dict[str, Any]]:
    return [{"round": k, "student": {"accuracy": v}} for k, v in enumerate(values, 1)]


@pytest.mark.parametrize("rule", [{"above": 0.5}, {"patience": 2}, {"below": 0.2, "mode": "min"}])
@pytest.mark.parametrize("every", [1, 3])
def test_a_resumed_run_is_over_where_an_unbroken_one_ended(
    rule: dict[str, Any], every: int
) -> None:
    lines = lines_of([0.1, 0.9, 0.3, float("nan"), 0.6, 0.1, 0.1])
    about: dict[str, Any] = {"metric": "student/accuracy", **rule, "evaluate_every": every}
    unbroken = EarlyStop(**about)
    for last in range(1, len(lines) + 1):
        over = unbroken.after_round(lines[:last])
        resumed = EarlyStop(**about)
        assert resumed.after_resume(lines[:last]) == over
        assert (resumed.reason, resumed.told(9)) == (unbroken.reason, unbroken.told(9))
        assert not (over and last % every)


def test_what_held_in_a_round_that_is_not_evaluated_ends_no_later_one() -> None:
    early = EarlyStop("student/accuracy", above=0.5, evaluate_every=3)
    lines = lines_of([0.1, 0.9, 0.2])
    assert not any(early.after_round(lines[:k]) for k in (1, 2, 3))


@pytest.mark.parametrize(
    ("said", "ends"), [(True, True), (np.True_, True), (1, False), (None, False)]
)
def test_a_callback_ends_a_run_by_true(said: object, ends: bool) -> None:
    early = EarlyStop(callbacks=[lambda numbers: said], evaluate_every=2)
    lines = lines_of([0.1, 0.2])
    assert not early.after_round(lines[:1])
    assert early.after_round(lines) == ends


def test_killed_before_its_result_a_run_that_ended_early_ends_there(tmp_path: Path) -> None:
    rule = ("stop.metric=student/accuracy", "stop.above=-1", "rounds=3", "sim=inline")
    first = federate(composed(*TINY, *rule, "checkpoint_every=1"), tmp_path)
    for name in ("result.json", "student.safetensors"):
        (tmp_path / name).unlink()
    again = run_py(f"resume={tmp_path}")
    assert again.returncode == 0, again.stderr
    found = json.loads((tmp_path / "result.json").read_text())
    for name in ("stopped_early", "student_sha256", "metrics_sha256", "clients_sha256"):
        assert found[name] == first[name]


def test_a_number_that_is_not_there_ends_the_second_round_that_is_evaluated() -> None:
    """In the first, what compares with an earlier round is not there yet."""
    lines: list[dict[str, Any]] = [{"round": 1, "student": {}, "probes": {"output_js": None}}]
    measured = {"student": {"accuracy": 0.9, "loss": 2.0}}
    lines += [{"round": server_round, **measured} for server_round in (2, 3, 4)]
    early = EarlyStop("student/acuracy", above=0.5, evaluate_every=2)
    assert not any(early.after_round(lines[:count]) for count in (1, 2, 3))
    told = "did you mean student/accuracy.; of student: student/accuracy, student/loss$"
    with pytest.raises(NoSuchNumber, match=f"stop.metric=student/acuracy: not among .*; {told}"):
        early.after_round(lines)
    with pytest.raises(NoSuchNumber, match="strategy/x: not among .*; of strategy: none"):
        EarlyStop("strategy/x", above=0.5).after_round(lines)
    assert not EarlyStop("probes/output_js", above=0.5).after_round(lines[:1])  # null: it is there
    assert EarlyStop("round", above=0.5).after_round(lines)


def test_a_misspelt_number_of_the_student_is_refused_before_anybody_trains(tmp_path: Path) -> None:
    words = (*TINY, "sim=inline", "stop.above=0.9")
    for metric, told in (
        ("student/acc", "; did you mean student/accuracy"),
        ("student/f1", "of s"),
    ):
        with pytest.raises(Stopped, match=f"stop.metric={metric}: .*{told}"):
            federate(composed(*words, f"stop.metric={metric}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def rounds_of(folder: Path) -> list[bytes]:
    return (folder / "metrics.jsonl").read_bytes().splitlines()


@pytest.mark.parametrize("sim", ["inline", "ray"])
def test_a_run_ends_early_and_goes_on_with_the_same_bits(
    sim: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is evaluated in each second round, and ends with the first of these that it may end in."""
    words = (*TINY, "rounds=4", "checkpoint_every=3", "evaluate_every=2", f"seed={SEED}")
    rule = ("stop.metric=clients/train_loss/mean", "stop.above=-1")
    early, whole = tmp_path / "early", tmp_path / "whole"
    all_of_it = federated(whole, *words, sim=sim)
    assert "ended early" not in capsys.readouterr().out
    ended = federated(early, *words, *rule, sim=sim)
    assert "ended early, after round 2" in capsys.readouterr().out
    assert ended["stopped_early"]["after_round"] == len(rounds_of(early)) == 2
    assert ended["stopped_early"]["reason"].startswith("clients/train_loss/mean: ")
    assert ended["student_accuracy"] is not None
    assert ended["student_sha256"] != all_of_it["student_sha256"]
    assert rounds_of(early) == rounds_of(whole)[:2]
    again = federated(early, resumed=["stop.metric=null", "stop.above=null"], sim=sim)
    assert "stopped_early" not in again | all_of_it
    for what in ("student", "metrics", "clients"):
        assert again[f"{what}_sha256"] == all_of_it[f"{what}_sha256"]


def test_an_early_end_keeps_no_checkpoint_that_was_not_asked_for(tmp_path: Path) -> None:
    rule = ("stop.metric=student/accuracy", "stop.above=-1", "rounds=3", "sim=inline")
    assert federate(composed(*TINY, *rule), tmp_path)["stopped_early"]["after_round"] == 1
    assert not (tmp_path / "checkpoint").exists()
