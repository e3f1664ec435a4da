"""What is shown of a run that was resumed."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from flwr.app import ArrayRecord
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.summary.writer import event_file_writer
from tensorboard.summary.writer.event_file_writer import AtomicCounter

from clients.messages.answers import Answers
from clients.messages.round_views import RoundView
from sim.engine.rounds import RoundReport
from sim.tracking.run_folder import CLIENTS, METRICS, truncate
from sim.tracking.tracker import Tracker
from tests.exchanges import exchange
from tests.federations import named
from tests.tracked_runs import (
    PROBES,
    curves_of,
    events_in,
    events_of,
    hparams_of,
    layout_of,
    lines_of,
    report,
    seen,
)


@pytest.fixture(autouse=True)
def _files_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one process and second are read by number, as a text: 9 would come after 10."""
    monkeypatch.setattr(event_file_writer, "_global_uid", AtomicCounter(100))


# --- TensorBoard ---


def test_a_run_that_fails_is_not_said_to_have_succeeded(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, {}, "", choices={"seed": 1})

    def fail() -> None:
        try:
            raise KeyError("of a round")
        finally:
            tracker.close()

    with pytest.raises(KeyError):
        fail()
    tags = [
        value.tag
        for event in EventFileLoader(str(next(events_in(tmp_path).glob("events.*")))).Load()
        for value in event.summary.value
    ]
    assert "_hparams_/session_start_info" in tags
    assert "_hparams_/session_end_info" not in tags


def test_what_was_shown_before_a_resume_stays_in_the_layout(tmp_path: Path) -> None:
    """Rounds that are not evaluated have no accuracies; the charts of earlier ones stay."""
    reports = [
        report(1, [exchange(k, metrics={"accuracy": 0.5}) for k in (0, 1)]),
        replace(report(2, [exchange(k, metrics={"train-loss": 1.0}) for k in (0, 1)]), student={}),
    ]
    for one in reports:
        tracker = Tracker(tmp_path, {}, "")
        tracker.round(one)
        tracker.close()
    charts = layout_of(tmp_path)
    assert set(charts["all clients"]) == {"accuracy", "train_loss"}
    assert set(charts["overview"]) == {"accuracy", "accuracy per megabyte"}


# --- the projector ---


def test_a_resumed_run_shows_each_round_once(tmp_path: Path) -> None:
    """Killed in round 3 after a checkpoint of round 2: round 3 is shown as it was last."""

    def record(tracker: Tracker, server_round: int, value: float) -> None:
        logits = torch.full((2, 4, 3), value)
        logits[0, :, 0] += 1
        teachers = Answers((0, 1), logits, torch.ones(2, 4, dtype=torch.bool), None, torch.ones(2))
        weights = torch.full((2, 4), 0.5)
        tracker.view(RoundView(server_round, (0, 1, 2, 3), teachers, weights, logits[0], []))
        told: dict[str, Any] = {"server_round": server_round, "metrics": {"accuracy": value}}
        exchanges = [exchange(k, **told) for k in (0, 1)]
        found = RoundReport(server_round, ArrayRecord(), {"accuracy": value}, {}, {}, exchanges)
        tracker.round(found)

    options: dict[str, Any] = {"figures_every": 1, "watch": [1], "choices": {"seed": 7}}
    first = Tracker(tmp_path, named(PROBES), "", **options)
    for server_round in (1, 2, 3):
        record(first, server_round, 0.1)
    # and no more: it was killed
    assert pq.read_table(tmp_path / CLIENTS)["round"].to_pylist() == [1, 1, 2, 2, 3, 3]
    truncate(tmp_path / METRICS, 2)
    table = first.clients.since(0).slice(0, 4)
    options["choices"] = {}  # they were told when the run began
    again = Tracker(tmp_path, named(PROBES), "", table, first.state(), **options)
    for server_round in (3, 4):
        record(again, server_round, 0.2)
    again.close()
    assert pq.read_table(tmp_path / CLIENTS)["round"].to_pylist() == [1, 1, 2, 2, 3, 3, 4, 4]
    ends = [tag for tag in hparams_of(tmp_path) if tag.endswith("session_end_info")]
    assert len(ends) == 1  # the page would say for ever that it runs
    for curve in curves_of(tmp_path).values():
        for tag in curve.Tags()["scalars"]:
            steps = [event.step for event in curve.Scalars(tag)]
            assert steps == [1, 2, 3, 4], tag
    events = events_of(tmp_path)
    for tag in events.Tags()["images"]:
        assert [event.step for event in events.Images(tag)] == [1, 2, 3, 4], tag
    shown = [event.value for event in events.Scalars("6 watched/client_1/accuracy")]
    assert shown == pytest.approx([0.1, 0.1, 0.2, 0.2])
    names = (events_in(tmp_path) / "clients_names.tsv").read_text().splitlines()
    assert names[1:] == [f"{k}\t{r}" for r in (1, 2, 3, 4) for k in (0, 1)]
    assert len(np.loadtxt(events_in(tmp_path) / "clients_points.tsv")) == 8


def test_a_number_that_is_none_is_shown_by_nobody_and_stops_no_resume(tmp_path: Path) -> None:
    """A line says null where a number is not finite; a resumed run reads its lines again."""
    values = iter([math.nan, 0.5])
    for server_round in (1, 2):
        tracker = Tracker(tmp_path, {"mine": lambda view: {"mine": next(values)}}, "")
        tracker.view(seen())
        tracker.round(report(server_round, [exchange(0), exchange(1)]))
        tracker.close()
    assert [line["probes"]["mine"] for line in lines_of(tmp_path / METRICS)] == [None, 0.5]
    assert [event.step for event in events_of(tmp_path).Scalars("3 drift/mine")] == [2]
