"""Sums at the edge of what numbers hold."""

from typing import Any

import pytest
import torch
from torch import Tensor

from clients.messages.answers import Answers
from sim.engine.grid import assume_task_identity
from strategies.aggregation import scorers
from tests.answers_in_parts import MEANS, answers, contents, folded, rule_of, together


@pytest.fixture(autouse=True)
def _identity() -> None:
    assume_task_identity(1)


@pytest.mark.parametrize("mean", MEANS)
def test_a_thousand_terms_of_all_sizes_are_summed_to_a_millionth(mean: str) -> None:
    # Odds from 1e-4 to 9,999, two groups of which hold the same clients in another order.
    teachers = answers(1000, num_inputs=6, masked=0.1)
    rng = torch.Generator().manual_seed(3)
    c = torch.rand(1000, 6, generator=rng).round(decimals=1).clamp(0, 1)
    teachers.own_probs[...] = c  # type: ignore[index]
    rule = rule_of(scorers.own_odds, MEANS[mean])
    c = c.double().clamp(1e-4, 1 - 1e-4)
    odds = torch.where(teachers.mask, c / (1 - c), 0)[..., None]
    exact = teachers.logits.double()
    if mean == "probs":
        exact = exact.softmax(-1)
    expected = (odds * exact).sum(0) / odds.sum(0)
    if mean == "logits":
        expected = expected.softmax(-1)
    replies = contents(teachers)
    for cuts in (list(range(10, 1000, 10)), [500], []):
        targets = folded(rule, replies, cuts).targets.double()
        assert (targets - expected).abs().max() < 2e-6


def huge(teachers: Answers) -> Tensor:
    """Score up to 1e38, and down to 1e-38 where the client is small."""
    exponents = 38 * (2 * (teachers.num_examples > 500).float() - 1)
    return (10**exponents)[:, None].expand_as(teachers.mask)


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("scorer", [huge, scorers.num_examples], ids=["scores", "sizes"])
def test_neither_huge_scores_nor_huge_logits_overflow(mean: str, scorer: Any) -> None:
    teachers = answers(6, scale=1e29, masked=0.0)
    teachers.num_examples[...] = torch.tensor([1e12, 1, 1e12, 700, 2, 1e3])
    rule = rule_of(scorer, MEANS[mean])
    replies = contents(teachers)
    whole, parts = together(rule, replies, []), folded(rule, replies, [2, 3])
    assert torch.isfinite(parts.targets).all()
    torch.testing.assert_close(parts.targets, whole.targets, rtol=0, atol=1e-5)


def test_scores_far_below_what_float32_holds_in_full_still_share() -> None:
    # Subnormal scores 1e-44 and 3e-44 (7 and 21 units of 2**-149): one quarter, three quarters.
    def tiny(teachers: Answers) -> Tensor:
        return (teachers.num_examples * 2.0**-149)[:, None].expand_as(teachers.mask)

    teachers = answers(2, masked=0.0)
    teachers.num_examples[...] = torch.tensor([7.0, 21.0])
    ensemble = folded(rule_of(tiny), contents(teachers), [1])
    expected = teachers.logits.softmax(-1)
    expected = 0.25 * expected[0] + 0.75 * expected[1]
    torch.testing.assert_close(ensemble.targets[::2], expected[::2], rtol=0, atol=1e-6)


def test_logits_out_of_reach_of_the_short_cut_are_subtracted_first() -> None:
    # 200 bits above and below: 2**200 overflows, 2**-200 is 0
    for offset in (0.0, 200.0, -200.0):
        teachers = answers(3, masked=0.0)
        teachers.logits.add_(offset)
        targets = folded(rule_of(scorers.uniform), contents(teachers), [1]).targets
        expected = teachers.logits.double().softmax(-1).mean(0)
        assert (targets.double() - expected).abs().max() < 1e-6
