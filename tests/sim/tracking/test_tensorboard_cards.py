"""Which card of TensorBoard a number stands on, whose curve it is, and how a run is called."""

import pytest

from sim.tracking.tensorboard_cards import HeldBack, Place, layout, places, run_name

LEARNT = {"accuracy", "loss"}


@pytest.mark.parametrize(
    ("tag", "where"),
    [
        ("student/accuracy", [("student", "1 learning/accuracy")]),
        ("strategy/ensemble_accuracy", [("ensemble", "1 learning/accuracy")]),
        ("clients/accuracy/min",
         [("clients min", "1 learning/accuracy"), ("", "8 bands/accuracy/min")]),
        ("clients/accuracy/q25", [("", "8 bands/accuracy/q25")]),
        ("clients/train_loss/min", [("", "8 bands/train_loss/min")]),
        ("probes/output_js", [("", "3 drift/output_js")]),
        ("probes/student_ece", [("student", "3 drift/ece")]),
        ("probes/oracle_right", [("oracle", "4 trust/right")]),
        ("probes/weight_entropy", [("", "4 trust/weight_entropy")]),
        ("strategy/num_teachers", [("", "5 strategy/num_teachers")]),
        ("watch/client_3/loss", [("", "6 watched/client_3/loss")]),
        ("cost/megabytes", [("", "7 cost/megabytes")]),
        ("bytes/reply", [("", "7 cost/bytes_reply")]),
        ("failures", [("", "7 cost/failures")]),
    ],
)  # fmt: skip
def test_where_a_number_stands(tag: str, where: list[tuple[str, str]]) -> None:
    assert [tuple(place) for place in places(tag, LEARNT)] == where


def test_a_measure_of_the_tasks_own_is_learnt_too() -> None:
    (first, _) = places("clients/miou/max", LEARNT | {"miou"})
    assert first == Place("clients max", "1 learning/miou")
    assert "mean IoU" in layout(["1 learning/miou"])["overview"]


@pytest.mark.parametrize(
    ("choices", "name"),
    [
        ({"seed": 0, "strategy": "feddf"}, "strategy=feddf,seed=0"),
        ({"seed": 3}, "seed=3"),
        ({}, "run"),
        ({"seed": 0, "strategy/scorer": "uniform"}, "strategy_scorer=uniform,seed=0"),
        ({"clients.condition.clients": "[2,3]"}, "clients.condition.clients=_2,3_"),
        ({"a": "x" * 200}, "a=" + "x" * 78),
        ({"../..": ".."}, ".._..=.."),
    ],
)
def test_a_run_is_called_by_what_it_was_told(choices: dict[str, object], name: str) -> None:
    assert run_name(choices) == name
    assert "/" not in name


def test_a_number_is_held_back_until_it_moves() -> None:
    held, place = HeldBack(), Place("", "7 cost/failures")
    assert [[*held.shown(step, place, 0.0)] for step in (1, 2, 3)] == [[], [], []]
    assert [*held.seen_once()] == []
    assert [*held.shown(4, place, 1.0)] == [(1, 0.0), (3, 0.0), (4, 1.0)]
    assert [*held.shown(5, place, 1.0)] == [(5, 1.0)]
    assert [*held.shown(5, Place("", "7 cost/other"), 2.0)] == []
    assert [*held.seen_once()] == [(5, Place("", "7 cost/other"), 2.0)]


@pytest.mark.parametrize("group", ["1 learning", "6 watched", "8 bands"])
def test_how_it_learns_is_shown_even_where_it_does_not(group: str) -> None:
    held = HeldBack()
    assert [[*held.shown(step, Place("", f"{group}/x"), 0.1)] for step in (1, 2)] == [
        [(1, 0.1)], [(2, 0.1)],
    ]  # fmt: skip
