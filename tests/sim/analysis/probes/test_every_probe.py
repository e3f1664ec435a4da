"""What holds for every probe: gaps, missing labels, what it is shown."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from clients.messages.round_views import Features, RoundView
from sim.analysis.drift import linear_cka
from sim.analysis.probes import (
    ByClient,
    Curve,
    Forgetting,
    Probe,
    Table,
    calibration,
    output_drift,
    output_matrices,
    recall_spread,
    representation_drift,
    teacher_audit,
    trust,
)
from tests.views import labelled, sure_of, view
from tests.watching import ALL

# --- with labels ---


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


# --- features ---


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


def test_a_figure_of_a_probe_is_a_curve_or_a_table() -> None:
    found = {k: v for probe in ALL for k, v in probe(labelled()).items()}
    kinds = {type(value) for value in found.values()}
    assert kinds == {float, ByClient, Table, Curve}
