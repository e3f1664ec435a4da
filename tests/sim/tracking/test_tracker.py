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
from sim.tracking.round_metrics import bin_edges, costs
from sim.tracking.run_folder import CLIENTS, METRICS
from sim.tracking.tracker import Tracker
from tests.exchanges import exchange
from tests.tracked_runs import events_of, hparams_of, layout_of, lines_of, report, tracked

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


def test_a_sweep_is_compared_within_its_run_folders(sizes: dict[int, Path]) -> None:
    folder = sizes[4] / "events"
    assert not [path for path in folder.iterdir() if path.is_dir()]
    found = hparams_of(sizes[4])
    begun = found["_hparams_/session_start_info"].session_start_info.hparams
    assert (begun["seed"].number_value, begun["strategy"].string_value) == (7, "dlad")
    assert "_hparams_/session_end_info" in found
    metrics = {info.name.tag for info in found["_hparams_/experiment"].experiment.metric_infos}
    assert metrics <= set(events_of(sizes[4]).Tags()["scalars"])


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
