"""Combiners: hand values, degenerate cohorts, and the order of sums."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from strategies.aggregation.combiners import enhanced_era, era, mean_of_logits, mean_of_probs
from strategies.aggregation.ensemble import EnsembleRule
from strategies.aggregation.scorers import uniform
from strategies.teaching.rehearsal import is_reducible, made_up, rehearse

Combiner = Callable[[Tensor, Tensor, float], Tensor]

each_combiner = pytest.mark.parametrize("combiner", [mean_of_probs, mean_of_logits])


def random_logits(num_teachers: int = 4, num_inputs: int = 6, num_classes: int = 5) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return 3 * torch.randn(num_teachers, num_inputs, num_classes, generator=rng)


def random_weights(num_teachers: int = 4, num_inputs: int = 6) -> Tensor:
    scores = torch.rand(num_teachers, num_inputs, generator=torch.Generator().manual_seed(1))
    return scores / scores.sum(0)


def column(*weights: float) -> Tensor:
    return torch.tensor(weights)[:, None]


# Teachers (4/5, 1/5) and (1/2, 1/2), as logits (ln 4, 0) and (0, 0)
PAIR = torch.tensor([[[math.log(4), 0.0]], [[0.0, 0.0]]])


def test_mean_of_probs_by_hand() -> None:
    # .25 (.8, .2) + .75 (.5, .5) = (.575, .425)
    targets = mean_of_probs(PAIR, column(0.25, 0.75), 1.0)
    assert targets[0].tolist() == pytest.approx([0.575, 0.425], abs=1e-6)


def test_mean_of_logits_by_hand() -> None:
    # logits .5 (ln 4, 0) = (ln 2, 0): softmax (2/3, 1/3)
    targets = mean_of_logits(PAIR, column(0.5, 0.5), 1.0)
    assert targets[0].tolist() == pytest.approx([2 / 3, 1 / 3], abs=1e-6)


def test_temperature_divides_logits_before_the_softmax() -> None:
    # T = 2: the first teacher says softmax(ln 2, 0) = (2/3, 1/3).
    probs = mean_of_probs(PAIR, column(0.5, 0.5), 2.0)
    assert probs[0].tolist() == pytest.approx([7 / 12, 5 / 12], abs=1e-6)
    # softmax((ln 2, 0) / 2) = (sqrt 2, 1) / (1 + sqrt 2)
    logits = mean_of_logits(PAIR, column(0.5, 0.5), 2.0)
    assert logits[0, 0].item() == pytest.approx(math.sqrt(2) / (1 + math.sqrt(2)), abs=1e-6)


def test_the_two_combiners_differ() -> None:
    logits, weights = random_logits(), random_weights()
    difference = mean_of_probs(logits, weights, 1.0) - mean_of_logits(logits, weights, 1.0)
    assert difference.abs().max() > 0.05


@each_combiner
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_rows_sum_to_one(combiner: Combiner, temperature: float) -> None:
    targets = combiner(random_logits(), random_weights(), temperature)
    assert targets.shape == (6, 5)
    assert (targets >= 0).all()
    torch.testing.assert_close(targets.sum(-1), torch.ones(6), atol=1e-6, rtol=0)


@each_combiner
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_identical_teachers_are_one_teacher(combiner: Combiner, temperature: float) -> None:
    teacher = random_logits(1)
    targets = combiner(teacher.expand(4, -1, -1), random_weights(), temperature)
    expected = (teacher[0] / temperature).softmax(-1)
    torch.testing.assert_close(targets, expected, atol=1e-6, rtol=0)


@each_combiner
def test_a_single_teacher_is_passed_through_bit_for_bit(combiner: Combiner) -> None:
    teacher = random_logits(1)
    targets = combiner(teacher, torch.ones(1, 6), 2.0)
    assert torch.equal(targets, (teacher[0] / 2.0).softmax(-1))


@each_combiner
def test_a_teacher_of_weight_one_decides_alone(combiner: Combiner) -> None:
    logits = random_logits()
    weights = torch.eye(4)[:, [0, 1, 2, 3, 3, 0]]  # example n listens to one teacher
    targets = combiner(logits, weights, 1.0)
    expected = torch.stack([logits[k, n] for n, k in enumerate([0, 1, 2, 3, 3, 0])]).softmax(-1)
    torch.testing.assert_close(targets, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("num_teachers", [2, 4, 8])
def test_equal_weights_are_the_mean_bit_for_bit(num_teachers: int) -> None:
    # 1/K is a power of two: scaling each term rounds nothing, so the sums agree term by term.
    logits = random_logits(num_teachers)
    targets = mean_of_probs(logits, torch.full((num_teachers, 6), 1 / num_teachers), 1.0)
    total = torch.zeros(6, 5)
    for answers in logits:
        total = total + answers.softmax(-1)
    assert torch.equal(targets, total / num_teachers)


@each_combiner
def test_teachers_are_added_in_their_order(combiner: Combiner) -> None:
    # With values of mixed size a float sum depends on its order; a left-to-right one is promised.
    logits, weights = random_logits(8), random_weights(8)
    summed = torch.zeros(6, 5)
    for k in range(8):
        term = logits[k].softmax(-1) if combiner is mean_of_probs else logits[k]
        summed = summed + weights[k][:, None] * term
    expected = summed if combiner is mean_of_probs else summed.softmax(-1)
    assert torch.equal(combiner(logits, weights, 1.0), expected)


def test_what_nobody_covers_is_told_apart() -> None:
    nobody = torch.zeros(4, 6)
    assert (mean_of_probs(random_logits(), nobody, 1.0) == 0).all()
    torch.testing.assert_close(
        mean_of_logits(random_logits(), nobody, 1.0), torch.full((6, 5), 0.2)
    )


@each_combiner
def test_a_constant_added_to_a_teachers_logits_changes_nothing(combiner: Combiner) -> None:
    logits, weights = random_logits(), random_weights()
    shift = torch.tensor([1.0, -2.0, 3.0, 0.5])[:, None, None]
    torch.testing.assert_close(
        combiner(logits + shift, weights, 2.0), combiner(logits, weights, 2.0), atol=1e-6, rtol=0
    )


@each_combiner
def test_inputs_are_not_changed(combiner: Combiner) -> None:
    logits, weights = random_logits(), random_weights()
    combiner(logits, weights, 2.0)
    assert torch.equal(logits, random_logits())
    assert torch.equal(weights, random_weights())


def total(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """A mean that forgets to divide."""
    return (logits / temperature).softmax(-1).sum(0)


def centred(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    probs = mean_of_probs(logits, weights, temperature)
    return probs - probs.mean(-1, keepdim=True)


def undefined(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    return torch.full_like(logits[0], math.nan)


def chosen(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    return logits[0].argmax(-1)


@pytest.mark.parametrize(
    ("combiner", "message"),
    [
        (total, r"combiner .*test_combiners.total: .* a row sums to 3, expected 1"),
        (centred, r"combiner .*test_combiners.centred: gave -0\.\d+ as a probability"),
        (undefined, r"combiner .*test_combiners.undefined: gave nan as a probability"),
        (chosen, r"combiner .*test_combiners.chosen: .* shape \(24,\), expected \(24, 5\)"),
    ],
)
@pytest.mark.parametrize("bound", [False, True])
def test_a_combiner_that_leaves_the_simplex_is_named(
    combiner: Combiner, message: str, bound: bool
) -> None:
    """Where answers are combined by a server, by neighbours, and before anybody trains."""
    made = partial(combiner) if bound else combiner
    rule = EnsembleRule(uniform, made)
    answers = made_up(rule, 5)
    for use in (
        lambda: rule(answers, np.arange(3)),
        lambda: rule.combined(answers, rule.weights(answers, torch.ones(3))),
        lambda: rehearse(rule, 5),
    ):
        with pytest.raises(ValueError, match=message):
            use()


def test_what_nobody_is_trusted_on_may_be_anything() -> None:
    weights = random_weights()
    weights[:, 2] = 0
    rule = EnsembleRule(uniform, lambda *given: total(*given) * torch.nan)
    answers = replace(made_up(rule, 5), logits=random_logits())
    with pytest.raises(ValueError, match="nan"):
        rule.combined(answers, weights)
    rule = EnsembleRule(uniform, lambda *given: mean_of_probs(*given))
    assert rule.combined(answers, weights)[2].sum() == 0


# --- sharpened means ---


def said(*probs: float) -> torch.Tensor:
    """Two teachers whose mean of probabilities that is: both say it."""
    return torch.tensor([[probs], [probs]]).log()


EVEN = torch.full((2, 1), 0.5)


def test_era_is_the_softmax_of_mean_probs_over_its_own_temperature() -> None:
    # e^5, e^3, e^2 over their sum; algorithms.md, D.3.
    targets = era(0.1)(said(0.5, 0.3, 0.2), EVEN, 1.0)
    expected = torch.tensor([[0.843795, 0.114195, 0.042010]])
    torch.testing.assert_close(targets, expected, atol=1e-6, rtol=0)


def test_enhanced_era_is_a_power_of_mean_probs_and_at_one_their_mean() -> None:
    # .25, .09, .04 over .38.
    targets = enhanced_era(2.0)(said(0.5, 0.3, 0.2), EVEN, 1.0)
    expected = torch.tensor([[0.657895, 0.236842, 0.105263]])
    torch.testing.assert_close(targets, expected, atol=1e-6, rtol=0)
    logits, weights = random_logits(), random_weights()
    torch.testing.assert_close(
        enhanced_era(1.0)(logits, weights, 2.0), mean_of_probs(logits, weights, 2.0)
    )


def test_the_mean_is_sharpened_and_not_each_answer() -> None:
    two = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]]]).log()
    for make in (era, enhanced_era):
        torch.testing.assert_close(make()(two, EVEN, 1.0), torch.tensor([[0.5, 0.5]]))


@pytest.mark.parametrize("make", [era, enhanced_era])
def test_sharpened_means_are_summed_where_answers_are(make: Any) -> None:
    assert is_reducible(EnsembleRule(uniform, make()), 5)


@pytest.mark.parametrize("make", [era, enhanced_era])
@pytest.mark.parametrize("number", [0.0, -1.0, float("nan"), float("inf")])
def test_a_sharpness_out_of_range_is_refused(make: Any, number: float) -> None:
    with pytest.raises(ValueError, match=r"strategy\.combiner\.\w+=.*: expected > 0"):
        make(number)
