"""Scorers: known vectors, the fallback, and the clamp on what clients send."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from clients.messages.answers import Answers
from strategies.aggregation import scorers
from strategies.aggregation.combiners import mean_of_probs
from strategies.aggregation.ensemble import EnsembleRule
from strategies.aggregation.normalisation import normalise
from tests.parts import recipe_for

Scorer = Callable[[Answers], Tensor]

NEED_DISCRIMINATOR = [scorers.own_probability, scorers.own_odds, scorers.num_examples_own_odds]
OTHERS = [
    scorers.uniform,
    scorers.num_examples,
    scorers.max_prob,
    scorers.entropy,
    scorers.margin,
]
each_scorer = pytest.mark.parametrize("scorer", [*OTHERS, *NEED_DISCRIMINATOR])

# One example, two teachers.
TOY = torch.tensor([[[0.7, 0.2, 0.1]], [[0.1, 0.8, 0.1]]])
TOY_C = torch.tensor([[0.9], [0.3]])

# Two inputs a, b; teachers' P(y=0 | a, b) = (.9, .6) and (.2, .5); n = (100, 300).
EXACT = torch.tensor([[[0.9, 0.1], [0.6, 0.4]], [[0.2, 0.8], [0.5, 0.5]]])
PLAIN_C = torch.tensor([[80 / 180, 20 / 120], [90 / 190, 210 / 310]])
BALANCED_C = torch.tensor([[0.8 / 1.3, 0.2 / 0.7], [0.3 / 0.8, 0.7 / 1.2]])
SIZES = torch.tensor([100.0, 300.0])


def teachers(
    probs: Tensor, own_probs: Tensor | None = None, sizes: Tensor | None = None
) -> Answers:
    """Make a cohort that answers these probabilities [K, N, C] for everything."""
    num_clients, num_inputs, _ = probs.shape
    return Answers(
        client_ids=tuple(range(num_clients)),
        logits=probs.log(),
        mask=torch.ones(num_clients, num_inputs, dtype=torch.bool),
        own_probs=own_probs,
        num_examples=torch.ones(num_clients) if sizes is None else sizes,
    )


def weights_of(scorer: Scorer, cohort: Answers) -> Tensor:
    return normalise(scorer(cohort), cohort.mask)


def target_of(scorer: Scorer, cohort: Answers) -> Tensor:
    return mean_of_probs(cohort.logits, weights_of(scorer, cohort), 1.0)


def random_cohort(num_clients: int = 4, num_inputs: int = 6) -> Answers:
    rng = torch.Generator().manual_seed(0)
    probs = torch.randn(num_clients, num_inputs, 5, generator=rng).softmax(-1)
    return teachers(
        probs,
        torch.rand(num_clients, num_inputs, generator=rng),
        torch.arange(1, num_clients + 1) * 10.0,
    )


# --- vectors ---


@pytest.mark.parametrize(
    ("scorer", "weights", "target"),
    [
        (scorers.own_probability, (0.75, 0.25), (0.55, 0.35, 0.10)),
        # odds 9 and 3/7
        (scorers.own_odds, (0.954545, 0.045455), (0.672727, 0.227273, 0.10)),
        # .7 and .8
        (scorers.max_prob, (0.466667, 0.533333), (0.38, 0.52, 0.10)),
        (scorers.uniform, (0.5, 0.5), (0.4, 0.5, 0.1)),
        # margins .5 and .7
        (scorers.margin, (0.416667, 0.583333), (0.35, 0.55, 0.10)),
    ],
)
def test_the_toy_vector(scorer: Scorer, weights: tuple, target: tuple) -> None:
    cohort = teachers(TOY, TOY_C)
    assert weights_of(scorer, cohort)[:, 0].tolist() == pytest.approx(weights, abs=1e-6)
    assert target_of(scorer, cohort)[0].tolist() == pytest.approx(target, abs=1e-6)


def test_odds_of_plain_discriminators_give_the_posterior_of_the_pooled_data() -> None:
    # odds (.8, .2) and (.9, 2.1): client 1 weighs .8/1.7 on a and .2/2.3 on b.
    # Pooled: P(y=0 | a) = (80 * .9 + 90 * .2) / 170, P(y=0 | b) = (20 * .6 + 210 * .5) / 230.
    cohort = teachers(EXACT, PLAIN_C)
    weights = weights_of(scorers.own_odds, cohort)
    assert weights[0].tolist() == pytest.approx([0.470588, 0.086957], abs=1e-6)
    pooled = target_of(scorers.own_odds, cohort)[:, 0]
    assert pooled.tolist() == pytest.approx([90 / 170, 117 / 230], abs=3e-7)  # .529412, .508696


@pytest.mark.parametrize(
    ("scorer", "expected"),
    [(scorers.own_probability, (0.538854, 0.519745)), (scorers.uniform, (0.55, 0.55))],
)
def test_other_rules_miss_that_posterior_by_known_amounts(scorer: Scorer, expected: tuple) -> None:
    target = target_of(scorer, teachers(EXACT, PLAIN_C))
    assert target[:, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_sizes_times_odds_of_balanced_discriminators_give_the_same_weights() -> None:
    cohort = teachers(EXACT, BALANCED_C, SIZES)
    balanced = weights_of(scorers.num_examples_own_odds, cohort)
    assert balanced[0].tolist() == pytest.approx([0.470588, 0.086957], abs=1e-6)
    plain = weights_of(scorers.own_odds, teachers(EXACT, PLAIN_C))
    torch.testing.assert_close(balanced, plain, atol=3e-7, rtol=0)


def test_entropy_is_one_over_the_effective_number_of_classes() -> None:
    # H = ln 2 and ln 4 for two and four equal classes, 0 for one: exp(-H) = 1/2, 1/4, 1.
    # (.7, .2, .1, 0): H = .249672 + .321888 + .230259 = .801819, exp(-H) = .448512
    certain = torch.tensor([1.0, 0, 0, 0])
    probs = torch.stack([torch.tensor([0.5, 0.5, 0, 0]), torch.full((4,), 0.25), certain])
    # Zeros as very unlikely logits: log 0 would not pass the screen.
    scores = scorers.entropy(teachers(probs.clamp_min(1e-30)[:, None]))
    assert scores[:, 0].tolist() == pytest.approx([0.5, 0.25, 1.0], abs=1e-6)
    other = scorers.entropy(teachers(torch.tensor([[[0.7, 0.2, 0.1]]])))
    assert other.item() == pytest.approx(0.448512, abs=1e-6)


def test_entropy_is_finite_for_any_finite_logits() -> None:
    # The difference overflows float32 to -inf: 0 * -inf must not become NaN.
    cohort = teachers(torch.ones(1, 1, 2))
    cohort.logits[...] = torch.tensor([3e38, -3e38])
    assert scorers.entropy(cohort).item() == 1.0


def test_margin_by_hand() -> None:
    cohort = teachers(torch.tensor([[[0.1, 0.6, 0.3], [0.4, 0.2, 0.4]]]))
    assert scorers.margin(cohort)[0].tolist() == pytest.approx([0.3, 0.0], abs=1e-6)


def test_num_examples_by_hand() -> None:
    scores = scorers.num_examples(teachers(EXACT, sizes=SIZES))
    assert scores.tolist() == [[100, 100], [300, 300]]


# --- fallback and clamp ---


def weights_with_fallback(scorer: Scorer, cohort: Answers, below: float = 1e-3) -> Tensor:
    rule = EnsembleRule(scorer, mean_of_probs, recipe_for(scorer), fallback_below=below)
    return rule.weights(cohort)


@pytest.mark.parametrize("scorer", NEED_DISCRIMINATOR)
def test_where_nobody_knows_an_example_all_are_trusted_alike(scorer: Scorer) -> None:
    # Largest c: 5e-4 on the first example (below 1e-3), 2e-3 on the second.
    own_probs = torch.tensor([[5e-4, 2e-3], [2e-4, 5e-4]])
    weights = weights_with_fallback(scorer, teachers(EXACT, own_probs))
    assert weights[:, 0].tolist() == [0.5, 0.5]
    assert weights[0, 1] > 0.79  # 4 to 1


def test_the_fallback_can_be_moved() -> None:
    own_probs = torch.tensor([[5e-4], [2e-4]])
    cohort = teachers(EXACT[:, :1], own_probs)
    weights = weights_with_fallback(scorers.own_probability, cohort, below=3e-4)
    assert weights[:, 0].tolist() == pytest.approx([5 / 7, 2 / 7], abs=1e-6)


def test_who_does_not_answer_does_not_know() -> None:
    # The first teacher's c would be enough, but it is masked; the other two are left.
    cohort = teachers(torch.full((3, 1, 2), 0.5), torch.tensor([[0.9], [5e-4], [1e-4]]))
    cohort.mask[0] = False
    assert weights_with_fallback(scorers.own_odds, cohort)[:, 0].tolist() == [0.0, 0.5, 0.5]


@pytest.mark.parametrize("claimed", [0.0, 1.0])
def test_a_client_cannot_claim_odds_beyond_the_clamp(claimed: float) -> None:
    own_probs = torch.tensor([[claimed], [0.5]])
    scores = scorers.own_odds(teachers(EXACT[:, :1], own_probs))
    assert 1 / 9999.5 < scores[0].item() <= 9999
    assert scores[1].item() == 1.0
    assert 0 < scorers.own_probability(teachers(EXACT[:, :1], own_probs))[0].item() < 1


def test_the_clamp_does_not_change_what_the_client_sent() -> None:
    cohort = teachers(EXACT[:, :1], torch.tensor([[1.0], [0.0]]))
    scorers.own_odds(cohort)
    assert cohort.own_probs is not None
    assert cohort.own_probs.tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize("scorer", NEED_DISCRIMINATOR)
def test_a_scorer_that_needs_a_discriminator_says_so(scorer: Scorer) -> None:
    with pytest.raises(ValueError, match="strategy/discriminator=features"):
        scorer(teachers(EXACT))


# --- every scorer ---


@each_scorer
def test_scores_are_finite_not_negative_and_float(scorer: Scorer) -> None:
    cohort = random_cohort()
    scores = scorer(cohort)
    assert scores.shape == cohort.mask.shape
    assert scores.is_floating_point()
    assert (torch.isfinite(scores) & (scores >= 0)).all()


@each_scorer
def test_permuting_teachers_permutes_scores(scorer: Scorer) -> None:
    cohort, order = random_cohort(), torch.tensor([2, 0, 3, 1])
    assert cohort.own_probs is not None
    permuted = teachers(
        cohort.logits[order].softmax(-1), cohort.own_probs[order], cohort.num_examples[order]
    )
    torch.testing.assert_close(scorer(permuted), scorer(cohort)[order], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("scorer", [scorers.max_prob, scorers.entropy, scorers.margin])
def test_a_constant_added_to_all_logits_changes_no_score(scorer: Scorer) -> None:
    cohort = random_cohort()
    before = scorer(cohort)
    cohort.logits.add_(3.0)
    torch.testing.assert_close(scorer(cohort), before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scorer", [scorers.max_prob, scorers.entropy, scorers.margin])
def test_the_surer_teacher_is_trusted_more(scorer: Scorer) -> None:
    sure, unsure = torch.tensor([[0.9, 0.05, 0.05]]), torch.tensor([[0.5, 0.3, 0.2]])
    scores = scorer(teachers(torch.stack([sure, unsure])))
    assert scores[0].item() > scores[1].item()


def test_bounds_of_the_scores_of_a_flat_answer() -> None:
    flat = teachers(torch.full((1, 1, 4), 0.25))
    values = [scorer(flat).item() for scorer in (scorers.max_prob, scorers.entropy, scorers.margin)]
    assert values == pytest.approx([0.25, math.exp(-math.log(4)), 0.0], abs=1e-6)


def test_selection_trusts_who_takes_an_example_for_its_own_and_nobody_else() -> None:
    answers = torch.full((2, 3, 2), 0.5)
    cohort = teachers(answers, torch.tensor([[0.5, 0.2, 0.49], [0.9, 0.6, 0.1]]))
    assert scorers.own_selection(cohort).tolist() == [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]
    bold = scorers.own_selection(cohort, threshold=0.55)
    assert bold.tolist() == [[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]
    weights = weights_of(scorers.own_selection, cohort)
    assert weights.tolist() == [[0.5, 0.0, 0.0], [0.5, 1.0, 0.0]]  # the third is dropped
    with pytest.raises(ValueError, match=r"threshold=1: expected in \(0, 1\)"):
        scorers.own_selection(cohort, threshold=1)
    with pytest.raises(ValueError, match="strategy/discriminator=features"):
        scorers.own_selection(teachers(answers))


def test_variance_over_classes_is_fed_ets_confidence() -> None:
    # algorithms.md, D.7: variances .068889 and .108889.
    probs = torch.tensor([[[0.7, 0.2, 0.1]], [[0.1, 0.8, 0.1]]])
    cohort = teachers(probs)
    assert scorers.variance(cohort).flatten().tolist() == pytest.approx([0.0688889, 0.1088889])
    weights = weights_of(scorers.variance, cohort)
    assert weights.flatten().tolist() == pytest.approx([0.3875, 0.6125])
    mean = (weights[..., None] * probs).sum(0)
    assert mean.flatten().tolist() == pytest.approx([0.3325, 0.5675, 0.1])


def disputed() -> Answers:
    """Of three examples: both select and agree, both and do not, one alone is sure."""
    probs = torch.tensor([[[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]], [[0.7, 0.3], [0.1, 0.9], [1, 0]]])
    own = torch.tensor([[0.9, 0.9, 0.9], [0.9, 0.9, 0.1]])
    return teachers(probs.clamp_min(1e-9), own)


def test_what_those_who_select_do_not_agree_on_is_dropped() -> None:
    # Distances to one-hot of means (.8, .2), (.5, .5), (.2, .8): .4, 1 and .4.
    select = partial(scorers.unambiguous_selection, threshold=0.5)
    assert select(disputed()).tolist() == [[1, 1, 1], [1, 1, 0]]
    assert select(disputed(), ambiguity=0.999).tolist() == [[1, 0, 1], [1, 0, 0]]
    assert select(disputed(), ambiguity=0.39).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert select(disputed(), ambiguity=0.39, phase="test").tolist() == [[1, 1, 1], [1, 1, 0]]
    for ambiguity in (0.0, 2.1):
        with pytest.raises(ValueError, match=r"strategy\.scorer\.ambiguity="):
            select(disputed(), ambiguity=ambiguity)


def test_who_is_masked_does_not_make_an_example_ambiguous() -> None:
    silent = replace(disputed(), mask=torch.tensor([[True, True, True], [True, False, True]]))
    found = scorers.unambiguous_selection(silent, threshold=0.5, ambiguity=0.9)
    assert found[:, 1].tolist() == [1, 0]
