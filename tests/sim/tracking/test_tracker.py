"""TensorBoard: tags, curves, figures and the layout of a run."""

import math
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from sim.analysis.probes import (
    Forgetting,
    Probe,
    calibration,
    output_drift,
    output_matrices,
    recall_spread,
    representation_drift,
    teacher_audit,
    trust,
)
from sim.tracking.run_folder import CLIENTS, METRICS
from sim.tracking.tracker import Tracker
from tests.exchanges import exchange
from tests.tracked_runs import (
    curves_of,
    events_in,
    events_of,
    hparams_of,
    layout_of,
    lines_of,
    report,
    tracked,
)

SPREAD = ("mean", "min", "q25", "median", "q75", "max")
OF_OUTPUTS = ("js_to_ensemble", "kl_to_ensemble", "disagreement")


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
        "3 drift/output_disagreement",
        "4 trust/weight_entropy",
        "5 strategy/distillation_loss",
        "7 cost/megabytes",
        *(f"8 bands/accuracy/{name}" for name in SPREAD),
        *(f"8 bands/train_loss/{name}" for name in SPREAD),
    }
    assert promised <= set(scalars)
    curves = curves_of(folder)
    clients = {"clients min", "clients median", "clients max"}
    assert set(curves) == {"", "student", "ensemble", *clients}
    for name, curve in curves.items():
        if name:
            assert set(curve.Tags()["scalars"]) == {"1 learning/accuracy", "1 learning/loss"}
        for tag in curve.Tags()["scalars"]:
            assert [event.step for event in curve.Scalars(tag)] == [1, 2], tag
            assert all(math.isfinite(event.value) for event in curve.Scalars(tag)), tag
    assert all(event.value > 0 for event in events.Scalars("7 cost/seconds_round"))


def test_the_first_groups_say_how_it_learns_and_who_drifts(folder: Path) -> None:
    """TensorBoard sorts groups by name, and opens two."""
    curves = curves_of(folder).values()
    groups = {tag.split("/")[0] for curve in curves for tag in curve.Tags()["scalars"]}
    groups |= {tag.split("/")[0] for tag in events_of(folder).Tags()["histograms"]}
    assert sorted(groups) == [
        *("1 learning", "2 clients", "3 drift", "4 trust", "5 strategy", "7 cost", "8 bands")
    ]


def test_what_never_changes_has_no_card(folder: Path, tmp_path: Path) -> None:
    """As many bytes are sent in each round; the lines have them."""
    first, second = lines_of(folder / METRICS)
    assert first["bytes"] == second["bytes"]
    assert not {"7 cost/bytes_reply", "7 cost/failures"} & set(events_of(folder).Tags()["scalars"])
    tracker = Tracker(tmp_path, {}, "")
    for number in range(1, 6):
        failing = [exchange(k, failure="lost" if number == 4 else "") for k in (0, 1)]
        tracker.round(report(number, failing))
    tracker.close()
    shown = events_of(tmp_path).Scalars("7 cost/failures")
    assert [(event.step, event.value) for event in shown] == [(1, 0), (3, 0), (4, 2), (5, 0)]


def test_of_a_single_round_everything_is_shown(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, {}, "")
    tracker.round(report(1, [exchange(0), exchange(1)]))
    assert "7 cost/failures" not in events_of(tmp_path).Tags()["scalars"]
    tracker.close()
    assert [event.value for event in events_of(tmp_path).Scalars("7 cost/failures")] == [0]


def test_each_client_metric_has_one_histogram_a_round(folder: Path) -> None:
    events = events_of(folder)
    measures = ("accuracy", "loss", "train_loss", "weight", *OF_OUTPUTS)
    expected = {f"2 clients/{measure}" for measure in measures}
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
    curves, lines = curves_of(folder), lines_of(folder / METRICS)
    for curve, tag, path in (
        ("student", "1 learning/accuracy", ("student", "accuracy")),
        ("clients median", "1 learning/accuracy", ("clients", "accuracy", "median")),
        ("", "8 bands/accuracy/median", ("clients", "accuracy", "median")),
        ("ensemble", "1 learning/accuracy", ("strategy", "ensemble_accuracy")),
        ("", "3 drift/output_js", ("probes", "output_js")),
    ):
        for line, event in zip(lines, curves[curve].Scalars(tag), strict=True):
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
        assert set(few[kind]) - set(many[kind]) <= {"6 watched/client_3/cka_with_student"}
        assert set(many[kind]) <= set(few[kind])
        assert len(few[kind]) > 2
    assert pq.read_table(sizes[40] / CLIENTS).num_rows == 80


def test_the_event_file_does_not_grow_with_the_clients(sizes: dict[int, Path]) -> None:
    # Histograms have a few bins more and a heat map of 32 clients more colours than one of 4.
    few, many = (
        sum(path.stat().st_size for path in events_in(folder).rglob("events.*"))
        for folder in sizes.values()
    )
    assert few / 2 < 200_000  # bytes a round, with ten figures in each
    assert many < 1.5 * few


def test_watched_clients_have_curves_of_their_own(sizes: dict[int, Path]) -> None:
    events = events_of(sizes[40])
    watched = {tag for tag in events.Tags()["scalars"] if tag.startswith("6 watched/")}
    assert {tag.split("/")[1] for tag in watched} == {"client_0", "client_3"}
    rows = pq.read_table(sizes[40] / CLIENTS).to_pylist()
    for measure in ("accuracy", "reply_bytes", "js_to_ensemble", "ece"):
        mine = [row[measure] for row in rows if row["client"] == 3]
        shown = [event.value for event in events.Scalars(f"6 watched/client_3/{measure}")]
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
    histograms = [tag.removeprefix("2 clients/") for tag in events.Tags()["histograms"]]
    assert set(charts["half of the clients"]) == set(charts["all clients"]) == set(histograms)
    assert "forgetting" in histograms
    for category in ("half of the clients", "all clients"):
        for chart in charts[category].values():
            (band,) = chart.margin.series
            assert {band.value, band.lower, band.upper} <= set(scalars)
    assert set(charts["overview"]) == {
        "accuracy", "output drift", "who was right", "accuracy per megabyte",
    }  # fmt: skip
    every = {tag for curve in curves_of(sizes[4]).values() for tag in curve.Tags()["scalars"]}
    for chart in charts["overview"].values():
        for tag in chart.multiline.tag:
            assert any(re.match(tag, scalar) for scalar in every), tag


def test_a_sweep_is_compared_within_its_run_folders(sizes: dict[int, Path]) -> None:
    assert events_in(sizes[4]).name == "strategy=dlad,seed=7"  # the run's name in TensorBoard
    found = hparams_of(sizes[4])
    begun = found["_hparams_/session_start_info"].session_start_info.hparams
    assert (begun["seed"].number_value, begun["strategy"].string_value) == (7, "dlad")
    assert "_hparams_/session_end_info" in found
    metrics = found["_hparams_/experiment"].experiment.metric_infos
    for metric in metrics:
        assert metric.name.tag in events_of(sizes[4], metric.name.group).Tags()["scalars"]
    assert [metric.display_name for metric in metrics] == [
        *("student accuracy", "ensemble accuracy", "clients min accuracy", "student loss"),
        *("output_js", "megabytes"),
    ]


def test_the_environment_is_shown_as_text(folder: Path) -> None:
    (event,) = events_of(folder).Tensors("environment/text_summary")
    shown = event.tensor_proto.string_val[0].decode()
    assert f"    torch: {torch.__version__}" in shown.splitlines()


def test_costs_add_up(folder: Path) -> None:
    events, lines = events_of(folder), lines_of(folder / METRICS)
    sent = np.cumsum([sum(line["bytes"].values()) / 1e6 for line in lines])
    shown = [event.value for event in events.Scalars("7 cost/megabytes")]
    assert shown == pytest.approx(sent.tolist(), rel=1e-6)
    paid = [event.value for event in events.Scalars("7 cost/accuracy_per_megabyte")]
    accuracies = [line["student"]["accuracy"] for line in lines]
    assert paid == pytest.approx([a / m for a, m in zip(accuracies, sent, strict=True)], rel=1e-6)


# --- the projector ---


def test_clients_are_points_for_the_projector(sizes: dict[int, Path]) -> None:
    folder = events_in(sizes[40])
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
