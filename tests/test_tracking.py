"""TensorBoard tags, the lines of the run folder, probes that change nothing."""

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvg
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from clients.app import SimulatedApp
from clients.discriminator import DiscriminatorRecipe
from sim.probes import output_drift, trust
from sim.rounds import QuorumLost, RoundReport
from sim.run_folder import CLIENTS, FAILURES, METRICS
from sim.tracking import Probe, Tracker
from strategies.scorers import max_prob, own_odds
from tests.federations import (
    Run,
    distillation,
    foreign_app,
    inline,
    run_foreign,
    run_ours,
    tiny_clients,
    vector,
)
from tests.test_run_folder import exchange

SPREAD = ("mean", "min", "q25", "median", "q75", "max")
PROBES: tuple[Probe, ...] = (trust, output_drift)


def tracked(
    folder: Path, num_clients: int = 4, probes: Sequence[Probe] = PROBES, **changes: Any
) -> Run:
    """Distil for two rounds, writing a run folder."""
    folder.mkdir()
    clients = tiny_clients(num_clients)
    tracker = Tracker(folder, probes, "seed: 7\nrounds: 2\n")
    strategy = distillation(clients, **({"scorer": max_prob, "report": tracker.view} | changes))
    try:
        pool = inline(SimulatedApp(clients))
        return run_ours(pool, clients, strategy, rounds=2, report=tracker.round)
    finally:
        tracker.close()


def events_of(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder / "events"), size_guidance={"histograms": 0})
    events.Reload()
    return events


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of four clients."""
    folder = tmp_path_factory.mktemp("tracking") / "four"
    tracked(folder)
    return folder


# --- TensorBoard ---


def test_the_promised_tags_are_there_once_a_round(folder: Path) -> None:
    events = events_of(folder)
    scalars = events.Tags()["scalars"]
    promised = {
        "student/accuracy",
        "student/loss",
        "strategy/ensemble_accuracy",
        "probes/weight_entropy",
        "probes/output_disagreement",
        "bytes/request",
        "bytes/reply",
        "seconds/round",
        "failures",
        *(f"clients/accuracy/{name}" for name in SPREAD),
        *(f"clients/train_loss/{name}" for name in SPREAD),
    }
    assert promised <= set(scalars)
    for tag in scalars:
        assert [event.step for event in events.Scalars(tag)] == [1, 2], tag
        assert all(math.isfinite(event.value) for event in events.Scalars(tag)), tag
    assert all(event.value > 0 for event in events.Scalars("seconds/round"))


def test_each_client_metric_has_one_histogram_a_round(folder: Path) -> None:
    events = events_of(folder)
    expected = {"clients/accuracy", "clients/loss", "clients/train_loss"}
    assert set(events.Tags()["histograms"]) == expected
    for tag in expected:
        histograms = events.Histograms(tag)
        assert [event.step for event in histograms] == [1, 2]
        assert [event.histogram_value.num for event in histograms] == [4, 4]  # clients


def test_the_config_is_shown_as_text(folder: Path) -> None:
    events = events_of(folder)
    (tag,) = [tag for tag in events.Tags()["tensors"] if tag.startswith("config")]
    (event,) = events.Tensors(tag)
    shown = event.tensor_proto.string_val[0].decode()
    assert shown.splitlines() == ["    seed: 7", "    rounds: 2"]


def test_tensorboard_shows_the_numbers_of_the_lines(folder: Path) -> None:
    events, lines = events_of(folder), lines_of(folder / METRICS)
    for tag, path in (
        ("student/accuracy", ("student", "accuracy")),
        ("clients/accuracy/median", ("clients", "accuracy", "median")),
        ("bytes/reply", ("bytes", "reply")),
        ("strategy/ensemble_accuracy", ("strategy", "ensemble_accuracy")),
    ):
        for line, event in zip(lines, events.Scalars(tag), strict=True):
            value: Any = line
            for key in path:
                value = value[key]
            assert event.value == pytest.approx(value, rel=1e-6), tag


def test_the_number_of_tags_does_not_depend_on_the_number_of_clients(
    folder: Path, tmp_path: Path
) -> None:
    tracked(tmp_path / "twelve", num_clients=12)
    four, twelve = events_of(folder).Tags(), events_of(tmp_path / "twelve").Tags()
    for kind in ("scalars", "histograms", "tensors"):
        assert sorted(four[kind]) == sorted(twelve[kind])
    assert pq.read_table(tmp_path / "twelve" / CLIENTS).num_rows == 24


# --- lines and rows ---


def test_a_line_agrees_with_the_clients_table(folder: Path) -> None:
    rows = pq.read_table(folder / CLIENTS).to_pylist()
    assert [(row["round"], row["client"]) for row in rows] == [
        (r, k) for r in (1, 2) for k in range(4)
    ]
    for line in lines_of(folder / METRICS):
        mine = [row for row in rows if row["round"] == line["round"]]
        accuracies = sorted(row["accuracy"] for row in mine)
        shown = line["clients"]["accuracy"]
        assert (shown["min"], shown["max"]) == (accuracies[0], accuracies[-1])
        assert shown["mean"] == pytest.approx(sum(accuracies) / 4)
        # Between the second and the third of four; a quarter of three steps from the first.
        assert shown["median"] == pytest.approx((accuracies[1] + accuracies[2]) / 2)
        q25 = accuracies[0] + 0.75 * (accuracies[1] - accuracies[0])
        assert shown["q25"] == pytest.approx(q25)
        assert line["bytes"]["reply"] == sum(row["reply_bytes"] for row in mine)
        assert set(line) == {
            *("round", "student", "strategy", "clients", "probes", "bytes", "failures")
        }


def test_lines_and_table_repeat_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    tracked(tmp_path / "again")
    for name in (METRICS, CLIENTS, FAILURES):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name
    assert (folder / FAILURES).read_bytes() == b""


def test_probes_do_not_change_the_student(tmp_path: Path) -> None:
    recipe = {"scorer": own_odds, "discriminator": DiscriminatorRecipe()}
    watched = tracked(tmp_path / "watched", **recipe)
    alone = tracked(tmp_path / "alone", probes=(), **recipe)
    assert watched.sha256 == alone.sha256
    assert set(lines_of(tmp_path / "alone" / METRICS)[0]["probes"]) == set()
    probed = lines_of(tmp_path / "watched" / METRICS)[0]["probes"]
    assert 0 <= probed["weight_entropy"] <= math.log(4)
    assert 0 <= probed["output_disagreement"] <= 1
    assert 0.25 <= probed["largest_weight"] <= 1


def test_a_rounds_probes_do_not_leak_into_the_next(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, [lambda view: {"x": 1.0}], "")
    tracker.view(None)  # type: ignore[arg-type]
    lines = [tracker.round(report(r, [])) for r in (1, 2)]
    tracker.close()
    assert [line["probes"] for line in lines] == [{"x": 1.0}, {}]


# --- failures ---


def report(server_round: int, exchanges: list[Any]) -> RoundReport:
    return RoundReport(server_round, ArrayRecord(), {"accuracy": 0.5}, {}, {}, exchanges)


def test_a_failure_is_a_line_that_says_who_when_where_and_why(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, (), "")
    run = partial(run_foreign, inline(foreign_app()), FedAvg())
    with pytest.raises(QuorumLost):
        run(vector("raise@2", "nan@0"), quorum=0.9, report=tracker.round)
    tracker.close()
    rejected, raised = lines_of(tmp_path / FAILURES)
    assert rejected == {
        "round": 1,
        "client": 0,
        "architecture": "arch-0",
        "phase": "train",
        "failure": "array 'arrays/nan@0' has 1 of 2 values that are not finite",
        "traceback": "",
    }
    assert (raised["client"], raised["failure"]) == (2, "ValueError: no disk left")
    assert raised["traceback"].startswith("Traceback (most recent call last)")
    (line,) = lines_of(tmp_path / METRICS)
    assert line["failures"] == 2
    failures = pq.read_table(tmp_path / CLIENTS).to_pydict()["failure"]
    assert [bool(failure) for failure in failures] == [True, False, True, False]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_is_not_finite_ends_no_run_and_keeps_the_line_json(
    tmp_path: Path, value: float
) -> None:
    tracker = Tracker(tmp_path, (), "")
    good, bad = exchange(0, metrics={"loss": 1.0}), exchange(1, metrics={"loss": value})
    tracker.round(report(3, [good, bad]))
    tracker.close()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / METRICS).read_text(encoding="utf-8")
    json.loads(text, parse_constant=refuse)
