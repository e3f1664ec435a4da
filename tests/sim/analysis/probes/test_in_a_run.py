"""Probes in a federation: who drifts, and that they change nothing."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from flwr.serverapp.strategy import FedAvg
from torch import Tensor, nn

from clients.messages.round_views import RoundView
from clients.population.clients import SimulatedClients
from clients.population.label_conditions import permuted_labels
from sim.analysis.probes import (
    Forgetting,
    calibration,
    output_drift,
    output_matrices,
    parameter_drift,
    recall_spread,
    representation_drift,
    teacher_audit,
    trust,
)
from sim.tracking.run_folder import CLIENTS, METRICS
from strategies.server.averaging import Averaging
from tests.federations import (
    SEED,
    distillation,
    inline,
    run_ours,
    simulated,
    student_of,
    tiny_clients,
)
from tests.watching import ALL, Noisy, drifting, watched

# --- federations ---


OUTPUT_MEASURES = (
    "js_to_ensemble", "kl_to_ensemble", "disagreement", "ece", "overconfidence", "recall_gap",
    "wrong_but_confident_rate", "lost_recall", "forgetting",
)  # fmt: skip
LESS_IS_WORSE = {"recall_gap"}


def test_a_client_that_begins_to_drift_is_ranked_first_by_every_output_measure(
    tmp_path: Path,
) -> None:
    """Client 2 of 6 takes every class for the next one from round 5 on."""
    clients = drifting(6, condition=partial(permuted_labels, clients=[2], from_round=5))
    probes = (output_drift, calibration, recall_spread, partial(teacher_audit, confident=0.6),
              Forgetting())  # fmt: skip
    watched(tmp_path / "run", clients, 6, probes)
    rows = pq.read_table(tmp_path / "run" / CLIENTS).to_pylist()
    first_by: dict[int, set[str]] = {}
    for server_round in range(1, 7):
        now = [row for row in rows if row["round"] == server_round]
        for measure in OUTPUT_MEASURES:
            sign = -1 if measure in LESS_IS_WORSE else 1
            values = [sign * row[measure] for row in now if row[measure] is not None]
            if values and values[2] > max(values[:2] + values[3:]):
                first_by.setdefault(server_round, set()).add(measure)
    assert first_by[5] | first_by[6] == set(OUTPUT_MEASURES)
    assert len(first_by.get(4, ())) < len(OUTPUT_MEASURES) / 2  # before, it is one of six
    lines = [json.loads(line) for line in (tmp_path / "run" / METRICS).read_text().splitlines()]
    curve = [line["probes"]["output_js"] for line in lines]
    assert min(curve[4:]) > 1.5 * max(curve[:4])


def test_permuted_labels_are_of_some_clients_from_some_round_on() -> None:
    labels = np.array([0, 1, 2, 2])
    told = partial(permuted_labels, labels, 3, clients=[1], from_round=5)
    assert told(0, 9).tolist() == told(1, 4).tolist() == labels.tolist()
    assert told(1, 5).tolist() == [1, 2, 0, 0]
    assert told(1, 5, shift=2).tolist() == [2, 0, 1, 1]


class Normed(nn.Module):
    """Has running statistics, which whoever lets it answer in training mode changes."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        size = math.prod(image_shape)
        self.features = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(size), nn.Dropout(0.2))
        self.classifier = nn.Linear(size, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        answers: Tensor = self.classifier(self.features(images))
        return answers


@pytest.mark.parametrize("reducible", [True, False])
def test_a_run_has_the_same_bits_with_and_without_probes(tmp_path: Path, reducible: bool) -> None:
    """But for what probes found, and for the features that one of them asked for."""
    changes = {} if reducible else {"weight_cap": 0.9}
    models = {"linear": Normed, "mlp": Noisy}
    quiet = (trust, output_drift, output_matrices, recall_spread, calibration, teacher_audit,
             Forgetting())  # fmt: skip
    runs = {
        name: watched(
            tmp_path / name,
            tiny_clients(4, models=models, student=Normed, together=False),
            2,
            probes,
            every,
            **changes,
        )
        for name, probes, every in (
            ("none", (), 0),
            ("quiet", quiet, 1),
            ("all", (*quiet, representation_drift), 2),
        )
    }
    assert len({run.sha256 for run in runs.values()}) == 1
    tables, lines = {}, {}
    for name in runs:
        table = pq.read_table(tmp_path / name / CLIENTS)
        plain = pq.read_table(tmp_path / "none" / CLIENTS).column_names
        tables[name] = table.select(plain)
        text = (tmp_path / name / METRICS).read_text()
        lines[name] = [without_probes(json.loads(line)) for line in text.splitlines()]
    assert tables["quiet"].equals(tables["none"])
    assert lines["quiet"] == lines["none"]
    sizes = ["request_bytes", "reply_bytes"]
    assert tables["all"].drop_columns(sizes).equals(tables["none"].drop_columns(sizes))
    for one, other in zip(lines["all"], lines["none"], strict=True):
        assert one.pop("bytes")["reply"] > other.pop("bytes")["reply"]
        assert one == other


def without_probes(line: dict[str, Any]) -> dict[str, Any]:
    replies = ("accuracy", "loss", "train_loss")
    return line | {"probes": {}, "clients": {k: line["clients"][k] for k in replies}}


def test_nobody_watching_costs_no_answers_of_the_student(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("asked for nobody")

    clients = tiny_clients(3)
    monkeypatch.setattr("strategies.teaching.round_view.predict", refuse)
    run_ours(inline(simulated(clients)), clients, distillation(clients))
    strategy = distillation(clients, report=lambda view: None)
    with pytest.raises(AssertionError, match="asked for nobody"):
        run_ours(inline(simulated(clients)), clients, strategy)


def test_the_students_answers_are_those_before_and_after_its_lesson() -> None:
    from clients.training.evaluation import predict

    clients, views = tiny_clients(3), list[RoundView]()
    first = student_of(clients)
    strategy = distillation(clients, report=views.append)
    run_ours(inline(simulated(clients)), clients, strategy, rounds=2)
    ids = np.array(views[0].proxy_ids)
    assert views[0].student_before is not None
    assert torch.equal(views[0].student_before, predict(first, clients.splits.proxy, ids))
    assert not torch.equal(views[0].student_before, views[0].student_after)
    assert torch.equal(views[1].student_before, views[0].student_after)
    now = predict(strategy.student, clients.splits.proxy, ids)
    assert torch.equal(views[1].student_after, now)
    assert all(view.labels is None for view in views)  # a strategy knows none


# --- averaging ---


def one_architecture() -> SimulatedClients:
    return tiny_clients(4, architectures=["linear"] * 4)


def test_flowers_averaging_shows_what_clients_sent_back() -> None:
    clients, views = one_architecture(), list[RoundView]()
    strategy = FedAvg(min_available_nodes=1)
    run = run_ours(inline(simulated(clients)), clients, strategy, watch=views.append)
    (seen,) = views
    assert seen.parameters is not None
    assert seen.teachers.client_ids == (0, 1, 2, 3)
    assert seen.teachers.num_examples.tolist() == [30.0] * 4
    for name, mean in run.parameters.items():  # of equal parts
        after = np.mean([each[name] for each in seen.parameters.after], axis=0)
        np.testing.assert_allclose(after, mean, rtol=1e-5, atol=1e-7)
    found = parameter_drift(seen)
    assert 1 / 4 < found["gradient_diversity"] < 10
    assert found["consensus_distance"] > 0


def test_averaging_in_parts_has_nothing_to_show_and_changes_nothing() -> None:
    clients, views = one_architecture(), list[RoundView]()
    pool = inline(simulated(clients))
    plain = run_ours(pool, clients, Averaging(seed=SEED))
    seen = run_ours(pool, clients, Averaging(seed=SEED), watch=views.append)
    assert views == []
    assert seen.sha256 == plain.sha256


def test_averaging_has_the_same_bits_with_and_without_probes(tmp_path: Path) -> None:
    runs = [
        watched(tmp_path / str(len(probes)), one_architecture(), 2, probes,
                strategy=FedAvg(min_available_nodes=1))
        for probes in (ALL, ())
    ]  # fmt: skip
    assert runs[0].sha256 == runs[1].sha256
    line = json.loads((tmp_path / str(len(ALL)) / METRICS).read_text().splitlines()[0])
    assert set(line["probes"]) == {"gradient_diversity", "consensus_distance"}
    assert {"update_norm", "relative_update_norm", "cosine_to_mean"} <= set(line["clients"])
