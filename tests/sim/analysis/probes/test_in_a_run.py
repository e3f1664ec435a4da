"""Probes: what they make of a view, who drifts in a federation, that they change nothing."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from flwr.app import Message, RecordDict
from flwr.serverapp.strategy import FedAvg
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from torch import Tensor, nn

from clients.app import SimulatedApp
from clients.data import blobs, split
from clients.handlers.features import feature_request, read_features
from clients.messages.answers import ClientParameters, Features, RoundView, TeacherPredictions
from clients.messages.arrays import write_arrays
from clients.messages.requests import EVALUATE_FEATURES, client_id_of, node_id_of
from clients.models import logistic_regression, mlp
from clients.population.clients import SimulatedClients
from clients.population.conditions import permuted_labels
from clients.seeding import Purpose, generator
from clients.training.loop import train
from conf.building import instantiate
from conf.schema import register
from sim.analysis.drift import disagreement, jensen_shannon, linear_cka
from sim.analysis.probes import (
    ByClient,
    Curve,
    Every,
    Forgetting,
    Probe,
    Table,
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
from sim.tracking.tracker import Tracker
from strategies.aggregation.scorers import max_prob
from strategies.server.averaging import Averaging
from tests.federations import (
    SEED,
    Run,
    distillation,
    inline,
    named,
    open_pool,
    run_ours,
    student_of,
    tiny_clients,
)
from tests.places import CONF
from tests.sim.analysis.drift.test_output import random_probs

ALL: tuple[Any, ...] = (
    trust, output_drift, output_matrices, recall_spread, calibration, teacher_audit,
    parameter_drift, representation_drift, Forgetting(),
)  # fmt: skip


def view(weights: Tensor, logits: Tensor | None = None, **others: Any) -> RoundView:
    num_clients, num_inputs = weights.shape
    teachers = TeacherPredictions(
        client_ids=tuple(range(10, 10 + num_clients)),
        logits=torch.zeros(num_clients, num_inputs, 3) if logits is None else logits,
        mask=torch.ones(num_clients, num_inputs, dtype=torch.bool),
        own_probs=None,
        num_examples=torch.ones(num_clients),
    )
    ids, targets = tuple(range(num_inputs)), torch.zeros(num_inputs, 3)
    fields = {"server_round": 1, "proxy_ids": ids, "teachers": teachers, "weights": weights}
    return RoundView(**(fields | {"targets": targets, "losses": []} | others))


def sure_of(votes: list[int], confidence: float = 0.9) -> Tensor:
    """Logits [N, 3] whose most likely class has this probability."""
    hot = torch.nn.functional.one_hot(torch.tensor(votes), 3).double()
    return (hot * confidence + (1 - hot) * (1 - confidence) / 2).log()


# --- trust ---


@pytest.mark.parametrize("num_clients", [1, 2, 5])
def test_trust_of_uniform_weights_is_log_k(num_clients: int) -> None:
    values = trust(view(torch.full((num_clients, 7), 1 / num_clients)))
    assert values["weight_entropy"] == pytest.approx(math.log(num_clients), abs=1e-6)
    assert values["effective_teachers"] == pytest.approx(num_clients)
    assert values["largest_weight"] == pytest.approx(1 / num_clients, abs=1e-6)
    assert values["weight"].values.tolist() == pytest.approx([1 / num_clients] * num_clients)


def test_trust_of_one_deciding_teacher_is_zero() -> None:
    values = trust(view(torch.eye(3)[:, [0, 1, 2, 2]]))
    assert values.pop("weight").values.tolist() == [0.25, 0.25, 0.5]
    assert values == {"weight_entropy": 0.0, "effective_teachers": 1.0, "largest_weight": 1.0}


def test_trust_counts_covered_examples_only() -> None:
    # Entropies ln 2 and 0, and an example that nobody covers
    weights = torch.tensor([[0.5, 1.0, 0.0], [0.5, 0.0, 0.0]])
    values = trust(view(weights))
    assert values["weight_entropy"] == pytest.approx(math.log(2) / 2, abs=1e-6)
    assert values["effective_teachers"] == pytest.approx(1.5, abs=1e-6)
    assert values["largest_weight"] == pytest.approx(0.75, abs=1e-6)


# --- output space ---


def test_output_drift_is_the_mean_over_examples() -> None:
    # First example: the known pair, votes differ; second: both say the same.
    pair = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    probs = torch.stack([pair, torch.tensor([[0.5, 0.3, 0.2]] * 2)], dim=1)
    values = output_drift(view(torch.full((2, 2), 0.5), probs.log()))
    assert values["output_disagreement"] == 0.5
    assert values["output_js"] == pytest.approx(0.222923 / 2, abs=1e-6)
    assert values["js_to_ensemble"].values.mean() == pytest.approx(0.222923 / 2, abs=1e-6)
    mean = np.array([0.4, 0.5, 0.1])
    kl = [
        float((mean * np.log(mean / own)).sum()) / 2 for own in ([0.7, 0.2, 0.1], [0.1, 0.8, 0.1])
    ]
    assert values["kl_to_ensemble"].values.tolist() == pytest.approx(kl, abs=1e-6)
    assert values["output_kl"] == pytest.approx(sum(kl) / 2, abs=1e-6)


def test_output_drift_takes_its_examples_a_few_at_a_time() -> None:
    # 40 examples are three pieces; by hand they are one.
    probs = random_probs(4, 40)
    values = output_drift(view(torch.full((4, 40), 0.25), probs.log()))
    assert values["output_disagreement"] == pytest.approx(float(disagreement(probs).mean()))
    assert values["output_js"] == pytest.approx(float(jensen_shannon(probs).mean()))


def test_matrices_are_of_clients_spread_over_the_cohort() -> None:
    found = output_matrices(view(torch.full((9, 4), 1 / 9), random_probs(9, 4)), most_clients=3)
    for table in found.values():
        assert isinstance(table, Table)
        assert table.values.shape == (3, 3)
        assert list(table.row_names) == list(table.column_names) == [10, 14, 18]


# --- with labels ---

LABELS = torch.tensor([0, 1, 2, 2])


def labelled(**others: Any) -> RoundView:
    """Two clients: the first is right but for the last example, the second on the last only."""
    logits = torch.stack([sure_of([0, 1, 2, 0]), sure_of([1, 2, 0, 2], 0.6)])
    weights = torch.tensor([[0.8, 0.8, 0.8, 0.8], [0.2, 0.2, 0.2, 0.2]])
    told = {
        "labels": LABELS,
        "targets": sure_of([0, 1, 2, 0], 0.8).softmax(-1),
        "student_before": sure_of([0, 0, 2, 2]),
        "student_after": sure_of([0, 1, 0, 0]),
    }
    return view(weights, logits, **(told | others))


def test_the_audit_by_hand() -> None:
    found = teacher_audit(labelled(), confident=0.85)
    assert found["ensemble_right"] == 0.75
    assert found["student_right"] == 0.5
    assert found["oracle_right"] == 1.0
    assert found["right_weight"] == pytest.approx((3 * 0.8 + 0.2) / 4)
    # One of four answers of the first client is wrong, and sure; the second is never sure.
    assert found["wrong_but_confident"] == pytest.approx(1 / 8)
    assert found["wrong_but_confident_rate"].values.tolist() == [0.25, 0.0]
    # Trusted and right 3 of 4, else right 1 of 4: the 2 x 2 table's correlation is 0.5.
    assert found["weight_correctness_spearman"] == pytest.approx(0.5)
    assert found["weight_mass"].values == pytest.approx(np.array([[0.8] * 3, [0.2] * 3]))
    assert found["teacher_error"].values.tolist() == [[0, 0, 0.5], [1, 1, 0.5]]


def test_what_is_masked_is_no_answer_to_the_audit() -> None:
    seen = labelled()
    mask = torch.tensor([[True] * 4, [False] * 4])
    found = teacher_audit(replace(seen, teachers=replace(seen.teachers, mask=mask)))
    assert found["oracle_right"] == 0.75
    assert np.isnan(found["teacher_error"].values[1]).all()
    assert np.isnan(found["wrong_but_confident_rate"].values[1])


def with_silent(views: RoundView, *silent: int) -> RoundView:
    """The same with further teachers, who answer nothing at all and are trusted with nothing."""
    teachers = views.teachers
    rows = torch.zeros(len(silent), teachers.mask.shape[1])
    more = replace(
        teachers,
        client_ids=(*teachers.client_ids, *silent),
        logits=torch.cat([teachers.logits, rows[..., None].expand(-1, -1, 3)]),
        mask=torch.cat([teachers.mask, rows.bool()]),
        num_examples=torch.ones(len(teachers.client_ids) + len(silent)),
    )
    return replace(views, teachers=more, weights=torch.cat([views.weights, rows]))


@pytest.mark.parametrize("probe", [trust, output_drift, recall_spread, calibration, teacher_audit])
def test_a_silent_teacher_changes_no_number(probe: Probe) -> None:
    """One lost chunk of one teacher must not empty what is known of all the others."""
    whole, rest = probe(labelled()), probe(with_silent(labelled(), 40))
    assert set(rest) == set(whole)
    for name, value in whole.items():
        if isinstance(value, ByClient):
            values = np.asarray(rest[name].values)
            assert values[:2].tolist() == pytest.approx(np.asarray(value.values).tolist()), name
            assert np.isnan(values[2]) or name == "weight", name
        elif isinstance(value, float):
            assert rest[name] == pytest.approx(value, abs=1e-12), name


def test_drift_of_answers_with_gaps_by_hand() -> None:
    """Of three clients one left out the first example, another the second."""
    known = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    probs = torch.stack([known[[0, 0]], known[[1, 1]], known[[1, 0]]])  # [3, 2, 3]
    mask = torch.tensor([[True, True], [True, False], [False, True]])
    seen = view(torch.full((3, 2), 0.5), probs.log())
    found = output_drift(replace(seen, teachers=replace(seen.teachers, mask=mask)))
    # First: the known pair; second: clients 0 and 2, who say the same.
    assert found["output_js"] == pytest.approx(0.222923 / 2, abs=1e-6)
    assert found["output_disagreement"] == pytest.approx(0.5)
    assert found["disagreement"].values.tolist() == pytest.approx([0.5, 1, 0])
    assert found["js_to_ensemble"].values[2] == pytest.approx(0, abs=1e-7)
    matrices = output_matrices(replace(seen, teachers=replace(seen.teachers, mask=mask)))
    apart = matrices["js_matrix"].values
    assert apart[0].tolist() == pytest.approx([0, 0.222923, 0], abs=1e-6)
    assert np.isnan(apart[1, 2])  # no example that both answered
    assert matrices["disagreement_matrix"].values[0].tolist() == [0, 1, 0]


def test_recall_of_answers_with_gaps_is_of_what_was_answered() -> None:
    seen = labelled()  # classes (0, 1, 2, 2); the second client is right on the last only
    mask = torch.tensor([[True] * 4, [False, True, False, True]])
    found = recall_spread(replace(seen, teachers=replace(seen.teachers, mask=mask)))
    table = found["recall"].values
    assert table[1].tolist() == pytest.approx([math.nan, 0, 1], nan_ok=True)
    # Deviations over clients: class 0 of one value, 1 of (1, 0), 2 of (.5, 1)
    assert found["recall_spread"] == pytest.approx((0 + 0.5 + 0.25) / 3)


def test_without_a_student_only_what_is_the_students_is_left_out() -> None:
    """As in a federation without a server, where a peer that lies must be seen all the same."""
    alone: dict[str, Any] = {"student_before": None, "student_after": None}
    for probe in (teacher_audit, recall_spread, calibration, Forgetting()):
        whole, rest = probe(labelled()), probe(labelled(**alone))
        gone = set(whole) - set(rest)
        assert all("student" in name or "recall_gap" in name for name in gone), probe
        assert set(rest) < set(whole)
        for name, value in rest.items():
            if isinstance(value, float):
                assert value == whole[name], name
    assert list(recall_spread(labelled(**alone))["recall"].row_names) == [10, 11]
    assert list(calibration(labelled(**alone))["reliability"].lines) == ["ensemble", "clients"]


def test_recall_spread_by_hand() -> None:
    found = recall_spread(labelled())
    # Recalls (1, 1, .5) and (0, 0, .5), the student's (1, 1, 0).
    assert found["recall_spread"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert found["recall_gap"].values.tolist() == pytest.approx([0.5 / 3, -1.5 / 3])
    assert found["worst_recall_gap"] == pytest.approx(-0.5)
    assert found["recall"].values.tolist() == [[1, 1, 0.5], [0, 0, 0.5], [1, 1, 0]]
    assert list(found["recall"].row_names) == [10, 11, "student"]


def test_calibration_by_hand() -> None:
    found = calibration(labelled())
    # Sure .9 and right 3 of 4; sure .6 and right 1 of 4; the student sure .9 and right 2 of 4.
    assert found["ece"].values.tolist() == pytest.approx([0.15, 0.35])
    assert found["overconfidence"].values.tolist() == pytest.approx([0.15, 0.35])
    assert found["student_ece"] == pytest.approx(0.4)
    assert found["ensemble_ece"] == pytest.approx(0.05)
    assert found["confidence_right"] == pytest.approx((3 * 0.9 + 0.6) / 4)
    assert found["confidence_wrong"] == pytest.approx((0.9 + 3 * 0.6) / 4)
    lines = found["reliability"].lines
    assert [pytest.approx([0.6, 0.9]), pytest.approx([0.25, 0.75])] == [
        axis.tolist() for axis in lines["clients"]
    ]


def test_forgetting_by_hand_and_after_a_resume() -> None:
    probe = Forgetting()
    first = probe(labelled())
    assert first["student_lost_recall"] == pytest.approx(1 / 3)  # recalls (1, 0, 1) to (1, 1, 0)
    assert np.isnan(first["lost_recall"].values).all()
    assert np.isnan(first["forgetting"].values).all()
    # The first client from (1, 1, .5) to (0, 1, 1), and then to (1, 0, 1).
    second, third = (
        labelled(**{"teachers": replace(
            labelled().teachers,
            logits=torch.stack([sure_of(votes), sure_of([1, 2, 0, 2])]),
        )})
        for votes in ([1, 1, 2, 2], [0, 0, 2, 2])
    )  # fmt: skip
    after = probe(second)
    assert after["lost_recall"].values.tolist() == pytest.approx([1 / 3, 0])
    assert after["forgetting"].values.tolist() == pytest.approx([(1 + 0 - 0.5) / 3, 0])
    resumed = Forgetting()
    resumed.restore(probe.state())
    for last in (probe(third), resumed(third)):
        assert last["lost_recall"].values.tolist() == pytest.approx([1 / 3, 0])
        assert last["forgetting"].values.tolist() == pytest.approx([(0 + 1 + 0) / 3, 0])
    assert Forgetting().state() == {}


def test_recalls_of_different_examples_are_not_compared() -> None:
    probe, seen = Forgetting(), labelled()
    probe(seen)
    gap = torch.tensor([[True, True, True, False], [True] * 4])
    between = probe(replace(seen, teachers=replace(seen.teachers, mask=gap)))
    assert np.isnan(between["forgetting"].values[0])
    assert np.isnan(between["lost_recall"].values[0])
    assert between["forgetting"].values[1] == 0
    after = probe(seen)  # against the first round, as if there had been no other
    assert after["forgetting"].values.tolist() == [0, 0]
    assert after["lost_recall"].values.tolist() == [0, 0]


def test_a_probe_that_is_asked_now_and_then_keeps_its_memory_in_a_resume() -> None:
    probe = Every(rounds=2, probe=Forgetting())
    probe(labelled())
    resumed = Every(rounds=2, probe=Forgetting())
    resumed.restore(probe.state())
    assert resumed(labelled(server_round=2)) == {}
    assert resumed(labelled(server_round=3))["forgetting"].values.tolist() == [0, 0]
    assert Every(rounds=2, probe=trust).state() == {}


@pytest.mark.parametrize("probe", [recall_spread, calibration, teacher_audit, Forgetting()])
def test_without_labels_measures_that_need_them_are_left_out(probe: Probe) -> None:
    assert probe(labelled(labels=None)) == {}


@pytest.mark.parametrize("probe", ALL, ids=lambda probe: getattr(probe, "__name__", "Forgetting"))
def test_a_round_that_nobody_covers_or_that_averages_parameters_has_no_numbers(
    probe: Probe,
) -> None:
    seen = labelled()
    nobody = torch.zeros(2, 4, dtype=torch.bool)
    masked = replace(seen.teachers, mask=nobody)
    assert probe(replace(seen, teachers=masked, weights=torch.zeros(2, 4))) == {}
    empty = view(torch.zeros(3, 0), torch.zeros(3, 0, 0), targets=torch.zeros(0, 0))
    assert probe(empty) == {}


@pytest.mark.parametrize("probe", ALL, ids=lambda probe: getattr(probe, "__name__", "Forgetting"))
def test_probes_change_nothing_that_they_are_shown(probe: Probe) -> None:
    seen = labelled()
    tensors = [seen.weights, seen.targets, seen.labels, seen.student_after, seen.teachers.logits]
    before = [tensor.clone() for tensor in tensors if tensor is not None]
    probe(seen)
    for tensor, was in zip(tensors, before, strict=True):
        assert tensor is not None
        assert torch.equal(tensor, was)


# --- parameters ---


def test_parameter_drift_of_the_known_updates() -> None:
    before = {"a": np.ones((1, 1)), "b": np.ones(2, np.float32), "n": np.ones(2, np.int64),
              "bn.running_var": np.ones(3)}  # fmt: skip
    deltas = np.array([[1.0, 0, 0], [0, 2, 0], [1, 1, 1]])
    after = [
        {"a": before["a"] + d[:1], "b": before["b"] + d[1:], "n": before["n"] * 9,
         "bn.running_var": before["bn.running_var"] * 9}
        for d in deltas
    ]  # fmt: skip
    seen = view(torch.zeros(3, 0), parameters=ClientParameters(before, after))
    found = parameter_drift(seen)
    assert found["gradient_diversity"] == pytest.approx(0.571429, abs=5e-7)
    assert found["consensus_distance"] == pytest.approx(1.111111, abs=5e-7)
    assert found["cosine_to_mean"].values.tolist() == pytest.approx(
        [0.53452, 0.80178, 0.92582], abs=5e-6
    )
    assert found["update_norm"].values.tolist() == pytest.approx([1, 2, 3**0.5])
    assert found["relative_update_norm"].values.tolist() == pytest.approx(
        [1 / 3**0.5, 2 / 3**0.5, 1]
    )
    layers = found["cosine_to_mean_by_layer"]
    assert list(layers.row_names) == ["a", "b"]
    assert layers.values[0].tolist() == pytest.approx([1, math.nan, 1], nan_ok=True)
    assert found["update_cosines"].values[0, 2] == pytest.approx(1 / 3**0.5)


def test_large_layers_are_looked_at_a_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    before = {"a": rng.normal(size=(5, 7)), "b": rng.normal(size=3)}
    after = [{k: v + rng.normal(size=v.shape) for k, v in before.items()} for _ in range(4)]
    seen = view(torch.zeros(4, 0), parameters=ClientParameters(before, after))
    whole = parameter_drift(seen)
    monkeypatch.setattr(
        "sim.analysis.probes.parameters.NUMBERS_AT_ONCE", 4 * 8
    )  # pieces of 8 of 35
    pieces = parameter_drift(seen)
    for name in ("gradient_diversity", "consensus_distance"):
        assert pieces[name] == pytest.approx(whole[name], rel=1e-12)
    for name in ("update_norm", "cosine_to_mean", "cosine_to_mean_by_layer", "update_cosines"):
        np.testing.assert_allclose(pieces[name].values, whole[name].values, rtol=1e-12)
    with monkeypatch.context() as fewer:
        fewer.setattr("sim.analysis.probes.parameters.NUMBERS_AT_ONCE", 1)  # never none at a time
        np.testing.assert_allclose(
            parameter_drift(seen)["update_norm"].values, whole["update_norm"].values, rtol=1e-12
        )


# --- when, and plugged by YAML ---


def test_every_asks_in_round_one_and_then_each_so_many() -> None:
    asked = [
        r
        for r in range(1, 10)
        if Every(rounds=4, probe=lambda v: {"x": 1.0})(view(torch.ones(1, 1), server_round=r))
    ]
    assert asked == [1, 5, 9]
    assert Every(rounds=0, probe=lambda v: {"x": 1.0})(view(torch.ones(1, 1))) == {}


def test_every_shipped_probe_is_plugged_by_yaml() -> None:
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=["probes=with_features"])
    found = {str(name): instantiate(node) for name, node in config.probes.items()}
    named = {
        *(trust, output_drift, parameter_drift, recall_spread, calibration, teacher_audit),
        representation_drift,
    }
    plugged = {getattr(probe, "func", type(probe)) for probe in found.values()}
    assert plugged == {*named, Forgetting, Every}  # all that sim.analysis.probes has
    assert len(found) == 9
    values = {k for probe in found.values() for k in probe(labelled())}
    assert {"output_js", "js_matrix", "ece", "weight_mass", "recall", "lost_recall"} <= values


# --- federations ---


def drifting(num_clients: int, **changes: Any) -> SimulatedClients:
    """Clients of two architectures with the same kind of data, who learn it well."""
    splits = split(
        *blobs(num_examples=600, seed=1), proxy_share=0.2, proxy_source=None, limit=None,
        proxy_limit=None, rng=generator(SEED, Purpose.SPLIT),
    )  # fmt: skip
    sgd = partial(torch.optim.SGD, lr=0.1)
    return SimulatedClients(
        splits=splits,
        partitions=np.array_split(np.arange(len(splits.private)), num_clients),
        architectures=[("linear", "mlp")[k % 2] for k in range(num_clients)],
        models={"linear": logistic_regression, "mlp": partial(mlp, hidden=(8,))},
        student=logistic_regression,
        train=partial(train, epochs=5, batch_size=16, optimizer=sgd),
        seed=SEED,
        **changes,
    )


def watched(
    folder: Path,
    clients: SimulatedClients,
    rounds: int,
    probes: Any = ALL,
    figures_every: int = 0,
    **changes: Any,
) -> Run:
    folder.mkdir()
    labels = clients.splits.proxy.labels
    tracker = Tracker(folder, named(probes), "", proxy_labels=labels, figures_every=figures_every)
    parts = {"scorer": max_prob, "report": tracker.view} | changes
    strategy = parts.pop("strategy", None) or distillation(clients, **parts)
    try:
        pool = inline(SimulatedApp(clients))
        told = {"report": tracker.round, "watch": tracker.view}
        return run_ours(pool, clients, strategy, rounds=rounds, **told)
    finally:
        tracker.close()


OUTPUT_MEASURES = (
    "js_to_ensemble", "kl_to_ensemble", "disagreement", "ece", "overconfidence", "recall_gap",
    "wrong_but_confident_rate", "lost_recall", "forgetting",
)  # fmt: skip
LESS_IS_WORSE = {"recall_gap"}


def test_a_client_that_begins_to_drift_is_ranked_first_by_every_output_measure(
    tmp_path: Path,
) -> None:
    """Client 2 of 6 takes every class for the next one from round 5 on."""
    clients = drifting(6, corrupt=partial(permuted_labels, clients=[2], from_round=5))
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


def test_corruption_is_of_some_clients_from_some_round_on() -> None:
    labels = np.array([0, 1, 2, 2])
    told = partial(permuted_labels, labels, 3, clients=[1], from_round=5)
    assert told(0, 9).tolist() == told(1, 4).tolist() == labels.tolist()
    assert told(1, 5).tolist() == [1, 2, 0, 0]
    assert told(1, 5, shift=2).tolist() == [2, 0, 1, 1]
    with pytest.raises(ValueError, match=r"clients\.corruption: not with clients\.messenger"):
        tiny_clients(2, corrupt=told, messenger=object())


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


class Noisy(nn.Module):
    """Draws whenever it answers: whoever asks it more often must not shift what it draws later."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(math.prod(image_shape), num_classes)

    def forward(self, images: Tensor) -> Tensor:
        answers: Tensor = self.classifier(images.flatten(1))
        return answers + 0.1 * torch.randn(answers.shape)


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
    monkeypatch.setattr("strategies.teaching.views.predict", refuse)
    run_ours(inline(SimulatedApp(clients)), clients, distillation(clients))
    strategy = distillation(clients, report=lambda view: None)
    with pytest.raises(AssertionError, match="asked for nobody"):
        run_ours(inline(SimulatedApp(clients)), clients, strategy)


def test_the_students_answers_are_those_before_and_after_its_lesson() -> None:
    from clients.training.evaluation import predict

    clients, views = tiny_clients(3), list[RoundView]()
    first = student_of(clients)
    strategy = distillation(clients, report=views.append)
    run_ours(inline(SimulatedApp(clients)), clients, strategy, rounds=2)
    ids = np.array(views[0].proxy_ids)
    assert views[0].student_before is not None
    assert torch.equal(views[0].student_before, predict(first, clients.splits.proxy, ids))
    assert not torch.equal(views[0].student_before, views[0].student_after)
    assert torch.equal(views[1].student_before, views[0].student_after)
    now = predict(strategy.student, clients.splits.proxy, ids)
    assert torch.equal(views[1].student_after, now)
    assert all(view.labels is None for view in views)  # a strategy knows none


# --- features ---


def cka_by_hand(view: RoundView) -> dict[str, Any]:
    """A user's probe, which asks two of the clients."""
    assert view.features is not None
    features = view.features([0, 2])
    return {f"cka_{k}": linear_cka(features.student, x) for k, x in features.clients.items()}


@pytest.mark.parametrize("kind", ["inline", "ray"])
def test_features_come_from_those_who_are_asked(kind: str) -> None:
    clients, found = tiny_clients(4), list[Mapping[str, Any]]()

    def report(view: RoundView) -> None:
        found.append(cka_by_hand(view) | dict(representation_drift(view, most_clients=2)))

    with open_pool(kind, SimulatedApp(clients)) as pool:
        run = run_ours(pool, clients, distillation(clients, report=report))
    asked = [e.client_id for e in run.grid.exchanges if e.phase == EVALUATE_FEATURES]
    assert asked == [0, 2, 0, 3]
    (values,) = found
    # A linear classifier's feature is its input, for the student's and for any client.
    assert values["cka_0"] == values["cka_2"] == pytest.approx(1)
    both = values["cka_with_student"].values
    assert both[0] == pytest.approx(1)
    assert np.isnan(both[1:3]).all()
    assert -1 < both[3] < 0.999
    assert values["cka_with_student_mean"] == pytest.approx((1 + both[3]) / 2)
    assert list(values["cka_matrix"].row_names) == [0, 3, "student"]


def told_otherwise(clients: SimulatedClients, features: Any) -> Run:
    """Clients 0 and 1 send something else where features are asked for, or raise."""
    app = SimulatedApp(clients)
    served = app.serve

    def serve(requests: Any, contexts: Any, device: str = "cpu") -> Any:
        for request, answer in zip(requests, served(requests, contexts, device), strict=True):
            fails = client_id_of(request.metadata.dst_node_id) < 2
            asked = request.metadata.message_type == EVALUATE_FEATURES
            yield features(request) if fails and asked else answer

    app.serve = serve  # type: ignore[method-assign]
    found = list[Mapping[str, Any]]()

    def report(view: RoundView) -> None:
        found.append(representation_drift(view, most_clients=4))

    run = run_ours(inline(app), clients, distillation(clients, report=report), quorum=1.0)
    (values,) = found
    assert np.isnan(values["cka_with_student"].values).tolist() == [True, True, False, False]
    return run


def with_features(request: Message, features: Any) -> Message:
    return Message(RecordDict({"features": write_arrays({"features": features})}), reply_to=request)


@pytest.mark.parametrize(
    ("features", "why"),
    [
        (lambda asked: RuntimeError("no features here"), "no features here"),
        (lambda asked: with_features(asked, np.zeros((2, 3), np.float32)), r"\(2, 3\), expected"),
        (lambda asked: with_features(asked, np.zeros(30, np.float32)), r"float32 \(30,\)"),
        (lambda asked: with_features(asked, np.full((30, 2), np.nan, np.float32)), "not finite"),
        (lambda asked: Message(RecordDict({}), reply_to=asked), "lacks 'features'"),
    ],
)
def test_features_that_are_none_end_no_run_and_break_no_quorum(features: Any, why: str) -> None:
    run = told_otherwise(tiny_clients(4), features)
    failed = [exchange for exchange in run.grid.exchanges if exchange.failure]
    assert [exchange.client_id for exchange in failed] == [0, 1]
    for exchange in failed:
        assert re.search(why, exchange.failure), exchange.failure


def test_features_are_looked_at_where_they_are_read_too() -> None:
    """Flower's own grid screens nothing."""
    asked = [
        Message(feature_request(np.arange(3)), dst_node_id=node_id_of(k),
                message_type=EVALUATE_FEATURES)
        for k in range(3)
    ]  # fmt: skip
    arrays = [np.zeros((3, 2), np.float32), np.zeros((2, 2), np.float32),
              np.full((3, 2), np.inf, np.float32)]  # fmt: skip
    for number, one in enumerate(asked):
        one.metadata.__dict__["_message_id"] = str(number)
    replies = [with_features(one, array) for one, array in zip(asked, arrays, strict=True)]
    assert list(read_features(replies, 3)) == [0]


def test_the_documented_defaults_are_the_defaults() -> None:
    """An answer is sure from 0.9 on; CKA is corrected for few examples; figures show 32 clients."""

    def fooled(confidence: float) -> Any:
        logits = torch.stack([sure_of([0, 1, 2, 0], confidence), sure_of([0, 1, 2, 2])])
        return teacher_audit(labelled(teachers=replace(labelled().teachers, logits=logits)))

    assert fooled(0.91)["wrong_but_confident_rate"].values.tolist() == [0.25, 0.0]
    assert fooled(0.89)["wrong_but_confident_rate"].values.tolist() == [0.0, 0.0]
    seen = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    other = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))
    found = representation_drift(
        view(torch.ones(1, 6), features=lambda ids: Features(seen, dict.fromkeys(ids, other)))
    )
    assert found["cka_with_student_mean"] == pytest.approx(linear_cka(seen, other, unbiased=True))
    few = view(torch.ones(1, 3), features=lambda ids: Features(seen[:3], {ids[0]: other[:3]}))
    assert representation_drift(few) == {}  # CKA of three examples is none
    many = view(torch.full((40, 2), 1 / 40))
    assert output_matrices(many)["js_matrix"].values.shape == (32, 32)


# --- averaging ---


def one_architecture() -> SimulatedClients:
    return tiny_clients(4, architectures=["linear"] * 4)


def test_flowers_averaging_shows_what_clients_sent_back() -> None:
    clients, views = one_architecture(), list[RoundView]()
    strategy = FedAvg(min_available_nodes=1)
    run = run_ours(inline(SimulatedApp(clients)), clients, strategy, watch=views.append)
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
    pool = inline(SimulatedApp(clients))
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


def test_a_figure_of_a_probe_is_a_curve_or_a_table() -> None:
    found = {k: v for probe in ALL for k, v in probe(labelled()).items()}
    kinds = {type(value) for value in found.values()}
    assert kinds == {float, ByClient, Table, Curve}
