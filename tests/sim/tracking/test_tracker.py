"""TensorBoard tags, the lines of the run folder, probes that change nothing."""

import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvg
from google.protobuf import text_format
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from clients.app import SimulatedApp
from clients.messages.answers import RoundView, TeacherPredictions
from clients.models.discriminator import DiscriminatorRecipe
from sim.analysis.probes import (
    ByClient,
    Curve,
    Every,
    Forgetting,
    Probe,
    ProbeError,
    Table,
    calibration,
    output_drift,
    output_matrices,
    recall_spread,
    representation_drift,
    teacher_audit,
    trust,
)
from sim.engine.rounds import QuorumLost, RoundReport
from sim.tracking import projector
from sim.tracking.run_folder import CLIENTS, FAILURES, METRICS, truncate
from sim.tracking.summary import bin_edges, costs
from sim.tracking.tracker import Tracker
from sim.workers.processes import seeded_globals
from strategies.aggregation.scorers import max_prob, own_odds
from tests.federations import (
    Run,
    distillation,
    foreign_app,
    inline,
    named,
    run_foreign,
    run_ours,
    tiny_clients,
    vector,
)
from tests.sim.tracking.test_run_folder import exchange

SPREAD = ("mean", "min", "q25", "median", "q75", "max")
OF_OUTPUTS = ("js_to_ensemble", "kl_to_ensemble", "disagreement")
PROBES: tuple[Probe, ...] = (trust, output_drift)


def tracked(
    folder: Path,
    num_clients: int = 4,
    probes: Sequence[Probe] = PROBES,
    shown: dict[str, Any] | None = None,
    **changes: Any,
) -> Run:
    """Distil for two rounds, writing a run folder."""
    folder.mkdir()
    clients = tiny_clients(num_clients)
    options = {"proxy_labels": clients.splits.proxy.labels, **(shown or {})}
    tracker = Tracker(folder, named(probes), "seed: 7\nrounds: 2\n", **options)
    strategy = distillation(clients, **({"scorer": max_prob, "report": tracker.view} | changes))
    try:
        pool = inline(SimulatedApp(clients))
        return run_ours(pool, clients, strategy, rounds=2, report=tracker.round)
    finally:
        tracker.close()


def events_of(folder: Path) -> EventAccumulator:
    sizes = {"histograms": 0, "images": 0}
    events = EventAccumulator(str(folder / "events"), size_guidance=sizes)
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
    measures = ("accuracy", "loss", "train_loss", "weight", *OF_OUTPUTS)
    expected = {f"clients/{measure}" for measure in measures}
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


EVERYTHING: tuple[Probe, ...] = (
    *(trust, output_drift, output_matrices, recall_spread, calibration, teacher_audit),
    representation_drift,
)


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Run folders of 4 and of 40 clients with all that can be shown, by number of clients."""
    folder = tmp_path_factory.mktemp("sizes")
    for number in (4, 40):
        shown = {"figures_every": 1, "watch": [0, 3], "choices": {"seed": 7, "strategy": "dlad"}}
        tracked(folder / str(number), number, (*EVERYTHING, Forgetting()), shown)
    return {number: folder / str(number) for number in (4, 40)}


def test_the_number_of_tags_does_not_depend_on_the_number_of_clients(
    sizes: dict[int, Path],
) -> None:
    few, many = (events_of(folder).Tags() for folder in sizes.values())
    for kind in ("scalars", "histograms", "tensors", "images"):
        # Of 40 clients 8 are asked for their features, and the watched client 3 is not among them.
        assert set(few[kind]) - set(many[kind]) <= {"watch/client_3/cka_with_student"}
        assert set(many[kind]) <= set(few[kind])
        assert len(few[kind]) > 2
    assert pq.read_table(sizes[40] / CLIENTS).num_rows == 80


def test_the_event_file_does_not_grow_with_the_clients(sizes: dict[int, Path]) -> None:
    # Histograms have a few bins more and a heat map of 32 clients more colours than one of 4.
    few, many = (
        sum(path.stat().st_size for path in (folder / "events").glob("events.*"))
        for folder in sizes.values()
    )
    assert few / 2 < 200_000  # bytes a round, with ten figures in each
    assert many < 1.5 * few


def test_watched_clients_have_curves_of_their_own(sizes: dict[int, Path]) -> None:
    events = events_of(sizes[40])
    watched = {tag for tag in events.Tags()["scalars"] if tag.startswith("watch/")}
    assert {tag.split("/")[1] for tag in watched} == {"client_0", "client_3"}
    rows = pq.read_table(sizes[40] / CLIENTS).to_pylist()
    for measure in ("accuracy", "reply_bytes", "js_to_ensemble", "ece"):
        mine = [row[measure] for row in rows if row["client"] == 3]
        shown = [event.value for event in events.Scalars(f"watch/client_3/{measure}")]
        assert shown == pytest.approx(mine, rel=1e-6)


def test_figures_are_small_pictures_each_so_many_rounds(
    sizes: dict[int, Path], tmp_path: Path
) -> None:
    events = events_of(sizes[4])
    tags = events.Tags()["images"]
    assert {tag.removeprefix("figures/") for tag in tags} == {
        *("recall", "reliability", "weight_mass", "teacher_error", "cka_matrix"),
        *("disagreement_matrix", "js_matrix", "accuracy_by_megabyte"),
    }
    for tag in tags:
        pictures = events.Images(tag)
        assert [picture.step for picture in pictures] == [1, 2]
        for picture in pictures:
            assert (picture.width, picture.height) == (350, 252)
            colours = np.asarray(Image.open(BytesIO(picture.encoded_image_string)))
            assert len(np.unique(colours.reshape(-1, 3), axis=0)) > 10, tag  # not blank
            assert len(picture.encoded_image_string) < 30_000
    for every, steps in ((2, [1]), (0, [])):
        folder = tmp_path / str(every)
        tracked(folder, probes=(recall_spread,), shown={"figures_every": every})
        tags = events_of(folder).Tags()["images"]
        shown = [e.step for tag in tags[:1] for e in events_of(folder).Images(tag)]
        assert shown == steps


def test_the_layout_has_a_band_for_each_measure_of_clients(sizes: dict[int, Path]) -> None:
    events = events_of(sizes[4])
    charts = layout_of(sizes[4])  # the second round had measures that the first had not
    scalars = events.Tags()["scalars"]
    histograms = [tag.removeprefix("clients/") for tag in events.Tags()["histograms"]]
    assert set(charts["half of the clients"]) == set(charts["all clients"]) == set(histograms)
    assert "forgetting" in histograms
    for category in ("half of the clients", "all clients"):
        for chart in charts[category].values():
            (band,) = chart.margin.series
            assert {band.value, band.lower, band.upper} <= set(scalars)
    assert set(charts["overview"]) == {
        "accuracy", "output drift", "who was right", "accuracy per megabyte",
    }  # fmt: skip
    for chart in charts["overview"].values():
        for tag in chart.multiline.tag:
            assert any(re.match(tag, scalar) for scalar in scalars), tag


def hparams_of(folder: Path) -> dict[str, Any]:
    """What the page that compares runs is told, by tag."""
    found: dict[str, Any] = {}
    for path in (folder / "events").glob("events.*"):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "hparams":
                    content = value.metadata.plugin_data.content
                    found[value.tag] = HParamsPluginData.FromString(content)
    return found


def layout_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Charts by category and title; the last layout is what TensorBoard shows."""
    proto = layout_pb2.Layout()
    (*_, last) = events_of(folder).Tensors("custom_scalars__config__")
    proto.ParseFromString(last.tensor_proto.string_val[0])
    return {category.title: {c.title: c for c in category.chart} for category in proto.category}


def test_a_sweep_is_compared_within_its_run_folders(sizes: dict[int, Path]) -> None:
    folder = sizes[4] / "events"
    assert not [path for path in folder.iterdir() if path.is_dir()]
    found = hparams_of(sizes[4])
    begun = found["_hparams_/session_start_info"].session_start_info.hparams
    assert (begun["seed"].number_value, begun["strategy"].string_value) == (7, "dlad")
    assert "_hparams_/session_end_info" in found
    metrics = {info.name.tag for info in found["_hparams_/experiment"].experiment.metric_infos}
    assert metrics <= set(events_of(sizes[4]).Tags()["scalars"])


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
        for event in EventFileLoader(str(next((tmp_path / "events").glob("events.*")))).Load()
        for value in event.summary.value
    ]
    assert "_hparams_/session_start_info" in tags
    assert "_hparams_/session_end_info" not in tags


def test_the_environment_is_shown_as_text(folder: Path) -> None:
    (event,) = events_of(folder).Tensors("environment/text_summary")
    shown = event.tensor_proto.string_val[0].decode()
    assert f"    torch: {torch.__version__}" in shown.splitlines()


def test_costs_add_up(folder: Path) -> None:
    events, lines = events_of(folder), lines_of(folder / METRICS)
    sent = np.cumsum([sum(line["bytes"].values()) / 1e6 for line in lines])
    shown = [event.value for event in events.Scalars("cost/megabytes")]
    assert shown == pytest.approx(sent.tolist(), rel=1e-6)
    paid = [event.value for event in events.Scalars("cost/accuracy_per_megabyte")]
    accuracies = [line["student"]["accuracy"] for line in lines]
    assert paid == pytest.approx([a / m for a, m in zip(accuracies, sent, strict=True)], rel=1e-6)


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


def test_what_was_reached_is_drawn_over_bytes_and_over_simulated_seconds() -> None:
    """Without a student it is the clients' mean accuracy."""
    line: dict[str, Any] = {
        "student": {"accuracy": 0.5}, "clients": {}, "strategy": {},
        "bytes": {"request": 10**6, "reply": 10**6},
    }  # fmt: skip
    first = costs(line, [])
    assert first == {"megabytes": 2.0, "accuracy_per_megabyte": 0.25}
    peers = line | {"student": {}, "clients": {"accuracy": {"mean": 0.6}}}
    timed = costs(peers | {"simulated_time_s": 3.0}, [first | {"simulated_time_s": 1.0}])
    assert timed == pytest.approx({
        "megabytes": 4.0, "accuracy_per_megabyte": 0.15,
        "simulated_time_s": 4.0, "accuracy_per_simulated_second": 0.15,
    })  # fmt: skip
    silent = line | {"student": {}, "bytes": {"request": 0, "reply": 0}}
    assert costs(silent, []) == {"megabytes": 0.0}
    # Without a server what the simulation itself sends and shows is nobody's cost.
    assert costs(silent | {"strategy": {"edge_bytes": 5e5}}, []) == {"megabytes": 0.5}


@pytest.mark.parametrize("scale", [1.0, 1e-30, -7e20, 0.0])
def test_values_that_differ_by_rounding_only_have_a_histogram(tmp_path: Path, scale: float) -> None:
    """numpy refuses thirty bins where there is no room for thirty numbers, and the run ended."""
    values = [scale, math.nextafter(scale, math.inf), scale]
    assert (np.diff(bin_edges(np.array(values), 30)) > 0).all()
    tracker = Tracker(tmp_path, {}, "")
    tracker.round(report(1, [exchange(k, metrics={"loss": v}) for k, v in enumerate(values)]))
    tracker.close()
    (event,) = events_of(tmp_path).Histograms("clients/loss")
    assert sum(event.histogram_value.bucket) == 3


def test_the_bins_reach_from_the_least_to_the_largest_value() -> None:
    assert bin_edges(np.array([3.0, 1.0, 2.0]), 2).tolist() == [1.0, 2.0, 3.0]


# --- the projector ---


def test_clients_are_points_for_the_projector(sizes: dict[int, Path]) -> None:
    folder = sizes[40] / "events"
    names = (folder / "clients_names.tsv").read_text().splitlines()
    assert names[0] == "client\tround"
    assert names[1:] == [f"{k}\t{r}" for r in (1, 2) for k in range(40)]
    points = np.loadtxt(folder / "clients_points.tsv")
    assert points.shape == (80, 32)
    config = ProjectorConfig()
    text_format.Parse((folder / "projector_config.pbtxt").read_text(), config)
    (embedding,) = config.embeddings
    assert (folder / embedding.tensor_path).exists()
    assert (folder / embedding.metadata_path).exists()


def test_equal_answers_are_one_point_and_distances_are_kept(tmp_path: Path) -> None:
    logits = 3 * torch.randn(3, 50, 10, generator=torch.Generator().manual_seed(1))
    logits[1] = logits[0]
    teachers = TeacherPredictions(
        (4, 5, 9), logits, torch.ones(3, 50, dtype=torch.bool), None, torch.ones(3)
    )
    nothing = torch.zeros(3, 50), torch.zeros(50, 10)
    ids, points = projector.coordinates(RoundView(1, tuple(range(50)), teachers, *nothing, []))
    assert ids == [4, 5, 9]
    assert (points[0] == points[1]).all()
    apart = float((logits.softmax(-1)[0] - logits.softmax(-1)[2]).norm())
    assert np.linalg.norm(points[0] - points[2]) == pytest.approx(apart, rel=3 / 64**0.5)


def test_points_are_of_some_clients_and_of_those_who_answered_everything() -> None:
    logits = torch.randn(100, 4, 3, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(100, 4, dtype=torch.bool)
    teachers = TeacherPredictions(tuple(range(100)), logits, mask, None, torch.ones(100))
    view = RoundView(1, (0, 1, 2, 3), teachers, mask.float() / 100, torch.zeros(4, 3), [])
    ids, points = projector.coordinates(view)
    assert len(ids) == 64
    assert (ids[0], ids[-1]) == (0, 99)
    again = projector.coordinates(replace(view, server_round=2))[1]
    assert (points == again).all()  # the axes are the same in every round
    mask = mask.clone()
    mask[0, 3] = False
    gap = replace(view, teachers=replace(teachers, mask=mask))
    assert projector.coordinates(gap)[0][0] == 1


def test_a_resumed_run_shows_each_round_once(tmp_path: Path) -> None:
    """Killed in round 3 after a checkpoint of round 2: round 3 is shown as it was last."""

    def record(tracker: Tracker, server_round: int, value: float) -> None:
        logits = torch.full((2, 4, 3), value)
        logits[0, :, 0] += 1
        teachers = TeacherPredictions(
            (0, 1), logits, torch.ones(2, 4, dtype=torch.bool), None, torch.ones(2)
        )
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
    first._writer.flush()  # and no more: it was killed
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
    events = events_of(tmp_path)
    for tag in events.Tags()["scalars"]:
        assert [event.step for event in events.Scalars(tag)] == [1, 2, 3, 4], tag
    for tag in events.Tags()["images"]:
        assert [event.step for event in events.Images(tag)] == [1, 2, 3, 4], tag
    shown = [event.value for event in events.Scalars("watch/client_1/accuracy")]
    assert shown == pytest.approx([0.1, 0.1, 0.2, 0.2])
    names = (tmp_path / "events" / "clients_names.tsv").read_text().splitlines()
    assert names[1:] == [f"{k}\t{r}" for r in (1, 2, 3, 4) for k in (0, 1)]
    assert len(np.loadtxt(tmp_path / "events" / "clients_points.tsv")) == 8


def test_a_number_that_is_none_is_shown_by_nobody_and_stops_no_resume(tmp_path: Path) -> None:
    """A line says null where a number is not finite; a resumed run reads its lines again."""
    values = iter([math.nan, 0.5])
    for server_round in (1, 2):
        tracker = Tracker(tmp_path, {"mine": lambda view: {"mine": next(values)}}, "")
        tracker.view(seen())
        tracker.round(report(server_round, [exchange(0), exchange(1)]))
        tracker.close()
    assert [line["probes"]["mine"] for line in lines_of(tmp_path / METRICS)] == [None, 0.5]
    assert [event.step for event in events_of(tmp_path).Scalars("probes/mine")] == [2]


# --- what a probe may return ---


def seen(num_clients: int = 2) -> RoundView:
    teachers = TeacherPredictions(
        tuple(range(num_clients)), torch.zeros(num_clients, 0, 0),
        torch.zeros(num_clients, 0, dtype=torch.bool), None, torch.ones(num_clients),
    )  # fmt: skip
    return RoundView(1, (), teachers, torch.zeros(num_clients, 0), torch.zeros(0, 0), [])


def test_a_probe_returns_numbers_values_of_clients_and_figures(tmp_path: Path) -> None:
    def mine(view: RoundView) -> dict[str, Any]:
        return {
            "number": np.float32(0.5),
            "of_clients": ByClient([1.0, math.nan]),
            "line": Curve("x", "y", {"a": (np.arange(5.0), np.arange(5.0))}),
            "matrix": Table(np.ones((3, 2)), "row", "column"),
        }

    tracker = Tracker(tmp_path, {"mine": mine}, "", figures_every=1)
    tracker.view(seen())
    line = tracker.round(report(1, [exchange(0), exchange(1)]))
    tracker.close()
    assert line["probes"] == {"number": 0.5}
    assert line["clients"]["of_clients"]["mean"] == 1.0  # what is not a number is left out
    assert pq.read_table(tmp_path / CLIENTS)["of_clients"].to_pylist() == [1.0, None]
    assert {"figures/line", "figures/matrix"} <= set(events_of(tmp_path).Tags()["images"])


def test_what_cannot_be_drawn_is_refused_where_it_is_made() -> None:
    with pytest.raises(ProbeError, match=r"Table of shape \(3,\): expected two axes"):
        Table(np.ones(3), "row", "column")
    with pytest.raises(ProbeError, match=r"Table of shape \(3, 2\): has 1 names"):
        Table(np.ones((3, 2)), "row", "column", ["a", "b", "c"], ["x"])
    with pytest.raises(ProbeError, match=r"line 'a' of \(3,\) and \(2,\): expected equal lengths"):
        Curve("x", "y", {"a": (np.ones(3), np.ones(2))})


def test_two_probes_may_not_give_one_name(tmp_path: Path) -> None:
    """The headline of drift could be anyone's number, and nobody would know."""
    probes = {"trust": trust, "mine": lambda view: {"largest_weight": 1.0}}
    tracker = Tracker(tmp_path, probes, "")
    weights = torch.full((2, 3), 0.5)
    view = replace(seen(), weights=weights, targets=torch.zeros(3, 0))
    with pytest.raises(
        ProbeError, match=r"probes\.mine: value 'largest_weight': is that of probes.trust"
    ):
        tracker.view(view)


def test_a_probe_may_not_change_what_it_is_shown(tmp_path: Path) -> None:
    def zeroed(view: RoundView) -> dict[str, float]:
        view.weights.zero_()
        return {}

    view = replace(seen(), weights=torch.full((2, 3), 0.5), targets=torch.zeros(3, 0))
    with pytest.raises(ProbeError, match=r"probes\.mine: changes what it is shown"):
        Tracker(tmp_path, {"mine": zeroed}, "").view(view)


def test_whoever_fails_is_named(tmp_path: Path) -> None:
    def broken(view: RoundView) -> dict[str, float]:
        return {"x": 1 / 0}

    with pytest.raises(ZeroDivisionError) as caught:
        Tracker(tmp_path, {"mine": broken}, "").view(seen())
    assert caught.value.__notes__ == ["It was raised by probes.mine in round 1."]
    nobody = {"cka": partial(output_matrices, most_clients=0)}
    with pytest.raises(ProbeError, match="probes.cka: most_clients=0: expected an integer >= 1"):
        Tracker(tmp_path, nobody, "").view(seen())
    with pytest.raises(ProbeError, match="rounds=-1: expected an integer >= 0"):
        Every(rounds=-1, probe=trust)


def test_a_probe_that_draws_leaves_the_generators_as_they_were(tmp_path: Path) -> None:
    def drawing(view: RoundView) -> dict[str, float]:
        return {"x": random.random() + float(np.random.rand()) + float(torch.rand(1))}

    tracker = Tracker(tmp_path, {"mine": drawing}, "")
    with seeded_globals(np.random.SeedSequence(7)):
        expected = random.random(), np.random.rand(), float(torch.rand(1))
    with seeded_globals(np.random.SeedSequence(7)):
        tracker.view(seen())
        assert (random.random(), np.random.rand(), float(torch.rand(1))) == expected


def test_a_clients_own_metric_does_not_pass_for_what_a_probe_found(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, {"mine": lambda view: {"zeal": ByClient([0.25, math.nan])}}, "")
    tracker.view(seen())
    line = tracker.round(report(1, [exchange(k, metrics={"zeal": 9.0}) for k in (0, 1)]))
    tracker.close()
    table = pq.read_table(tmp_path / CLIENTS).to_pydict()
    assert (table["zeal"], table["client_zeal"]) == ([0.25, None], [9.0, 9.0])
    assert line["clients"]["zeal"]["mean"] == 0.25


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"x": np.zeros(2)}, r"probes.mine: value 'x': ndarray of shape \(2,\), .* ByClient"),
        ({"x": "high"}, "probes.mine: value 'x': str"),
        ({"x": None}, "probes.mine: value 'x': NoneType"),
        (
            {"x": ByClient([0.0, 1.0, 2.0])},
            r"'x': ByClient of float64 \(3,\), .* each of 2 clients",
        ),
        ({"x": ByClient(["a", "b"])}, r"'x': ByClient of <U1 \(2,\)"),
        ({"accuracy": ByClient(np.zeros(2))}, "probes.mine: value 'accuracy': is a column"),
        ("all", "probes.mine: returns str, expected a dict"),
        (None, "probes.mine: returns NoneType, expected a dict"),
        ({3: 1.0}, "probes.mine: value 3: expected a name of letters"),
        ({"a/b": 1.0}, "probes.mine: value 'a/b': expected a name of letters"),
        ({"failure": ByClient(np.zeros(2))}, "probes.mine: value 'failure': is a column"),
    ],
)
def test_what_a_probe_may_not_return_is_refused_by_its_name(
    tmp_path: Path, value: Any, message: str
) -> None:
    tracker = Tracker(tmp_path, {"mine": lambda view: value}, "")
    with pytest.raises(ValueError, match=message):
        tracker.view(seen())
    tracker.close()


def test_labels_are_put_in_by_the_tracker_in_the_order_of_the_ids(tmp_path: Path) -> None:
    shown: list[RoundView] = []

    def look(view: RoundView) -> dict[str, float]:
        shown.append(view)
        return {}

    folder = tmp_path / "run"
    tracked(folder, probes=(look,))
    labels = tiny_clients(4).splits.proxy.labels
    assert shown[0].labels is not None
    assert shown[0].labels.tolist() == labels[list(shown[0].proxy_ids)].tolist()


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
    tracker = Tracker(tmp_path, {"mine": lambda view: {"x": 1.0}}, "")
    tracker.view(seen())
    lines = [tracker.round(report(r, [])) for r in (1, 2)]
    tracker.close()
    assert [line["probes"] for line in lines] == [{"x": 1.0}, {}]


# --- failures ---


def report(server_round: int, exchanges: list[Any]) -> RoundReport:
    return RoundReport(server_round, ArrayRecord(), {"accuracy": 0.5}, {}, {}, exchanges)


def test_a_failure_is_a_line_that_says_who_when_where_and_why(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, {}, "")
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
    tracker = Tracker(tmp_path, {}, "")
    good, bad = exchange(0, metrics={"loss": 1.0}), exchange(1, metrics={"loss": value})
    tracker.round(report(3, [good, bad]))
    tracker.close()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / METRICS).read_text(encoding="utf-8")
    json.loads(text, parse_constant=refuse)
