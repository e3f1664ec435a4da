"""Which rules may be summed in parts, and which need all answers."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from clients.messages.answers import Answers
from sim.engine.grid import assume_task_identity
from strategies.aggregation import scorers
from strategies.aggregation.combiners import WeightedMean, mean_of_probs, softened, unchanged
from strategies.teaching.rehearsal import is_reducible
from tests.answers_in_parts import MEANS, SCORERS, answers, contents, folded, rule_of


@pytest.fixture(autouse=True)
def _identity() -> None:
    assume_task_identity(1)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("mean", MEANS.values(), ids=MEANS)
@pytest.mark.parametrize("scorer", SCORERS)
def test_every_rule_of_ours_is_reducible(scorer: Any, mean: Any, own: bool) -> None:
    if not own and scorer in SCORERS[5:]:
        return  # it refuses to score at all
    assert is_reducible(rule_of(partial(scorer), partial(mean), own), 7)


def cohort_softmax(teachers: Answers) -> Tensor:
    return teachers.logits.amax(-1).softmax(0)


def mean_confidence(teachers: Answers) -> Tensor:
    mine = scorers.max_prob(teachers).mean(1, keepdim=True)  # over examples
    return mine.expand_as(teachers.mask)


def own_fallback(teachers: Answers) -> Tensor:
    assert teachers.own_probs is not None
    unknown = teachers.own_probs.amax(0) < 1e-3
    return torch.where(unknown, 1.0, teachers.own_probs)


def counts_answers(teachers: Answers) -> Tensor:
    return teachers.mask.sum(0, keepdim=True).float().expand_as(teachers.mask)


def needs_two(teachers: Answers) -> Tensor:
    first, second = teachers.logits.amax(-1)[:2]
    return (first - second).abs().expand_as(teachers.mask)


def scribbles(teachers: Answers) -> Tensor:
    return teachers.logits.abs_().amax(-1)


class Stateful:
    def __call__(self, teachers: Answers) -> Tensor:
        return torch.ones_like(teachers.mask, dtype=torch.float32)


@pytest.mark.parametrize(
    "scorer",
    [
        cohort_softmax,
        mean_confidence,
        own_fallback,
        counts_answers,
        needs_two,
        scribbles,
        Stateful(),
        partial(Stateful()),
    ],
)
def test_a_scorer_that_needs_more_than_an_answer_gets_all_of_them(scorer: Any) -> None:
    assert not is_reducible(rule_of(scorer), 4)


def median(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    return logits.softmax(-1).median(0).values


def across_examples(logits: Tensor, temperature: float) -> Tensor:
    return (logits - logits.mean(0)).softmax(-1)


@pytest.mark.parametrize(
    "changes",
    [
        {"combiner": median},
        {"combiner": partial(mean_of_probs, temperature=2.0)},
        {"combiner": WeightedMean(across_examples, unchanged)},
        {"combiner": WeightedMean(softened, unchanged, fraction=lambda z, t: (z.exp(), z.sum()))},
        {"weight_cap": 0.5},
    ],
    ids=["median", "bound", "rows", "wrong-fraction", "cap"],
)
def test_a_combination_that_is_no_mean_of_single_answers_gets_all_of_them(changes: Any) -> None:
    assert not is_reducible(rule_of(scorers.uniform, **changes), 4)


def test_a_users_weighted_mean_is_reducible() -> None:
    def geometric(mean: Tensor, temperature: float) -> Tensor:
        return mean.softmax(-1)

    def log_probs(logits: Tensor, temperature: float) -> Tensor:
        return (logits / temperature).log_softmax(-1)

    mean: Callable[..., Tensor] = WeightedMean(log_probs, geometric)
    assert is_reducible(rule_of(scorers.max_prob, mean), 4)


def test_a_bad_score_is_an_error_in_parts_too() -> None:
    def negative(teachers: Answers) -> Tensor:
        return -torch.ones_like(teachers.mask, dtype=torch.float32)

    with pytest.raises(ValueError, match="scores must be finite and >= 0"):
        folded(rule_of(negative), contents(answers(2)), [])
    with pytest.raises(ValueError, match="scores must be finite and >= 0"):
        folded(rule_of(lambda t: t.logits.amax(-1) * math.nan), contents(answers(2)), [])
