"""Scorers: how much to trust each teacher on each example. `normalise` turns scores into weights.

A scorer is a function `(teachers) -> scores [K, N]`, >= 0, larger = trusted more. A new one is a
function anywhere on the Python path and three YAML lines under `conf/strategy/scorer/`. Scores may
use `teachers.logits`, `own_probs` and `num_examples`, and what the function names of
`strategies.aggregation.rule_arguments`; silent and masked clients are `normalise`'s business. A
function whose score of a client and an example depends on that client's answer to it alone lets
workers sum up answers where they are made. One that is for a kind of discriminator may say so.
"""

from typing import Annotated

import torch
from torch import Tensor

from clients.messages.answers import Answers
from strategies.aggregation.rule_arguments import Calibration
from strategies.aggregation.scorer_compatibility import for_discriminators, of_probabilities

PROBABILITY_FLOOR = 1e-4
"""Discriminators' probabilities are clamped to [1e-4, 1 - 1e-4]: no client claims larger odds."""


def uniform(teachers: Answers) -> Tensor:
    """Trust all teachers alike: scores are 1.

    Args:
        teachers: Answers of the cohort.

    Returns:
        Scores [K, N].
    """
    return torch.ones_like(teachers.mask, dtype=torch.float32)


def num_examples(teachers: Answers) -> Tensor:
    """Trust a teacher by the size of its private set, on every example alike.

    Args:
        teachers: Answers of the cohort.

    Returns:
        Scores > 0 [K, N].
    """
    return teachers.num_examples[:, None].expand_as(teachers.mask)


@of_probabilities
def validation_accuracy(teachers: Answers, *, calibration: Calibration) -> Tensor:
    """Trust a teacher by its accuracy on labelled proxy examples, on every example alike.

    Args:
        teachers: Answers of the cohort.
        calibration: Its answers to M labelled examples, of which those count that it answers for.

    Returns:
        Scores in [0, 1], [K, N].
    """
    answered = calibration.answers.mask & (calibration.labels >= 0)
    right = (calibration.logits.argmax(-1) == calibration.labels) & answered
    share = right.sum(1) / answered.sum(1).clamp_min(1)
    return share[:, None].expand_as(teachers.mask)


def oracle(teachers: Answers, *, labels: Tensor | None) -> Tensor:
    """Trust a teacher by the probability that it gives to the true class, which nobody knows.

    What who knows the labels would do; no bound of all scorers: many who are nearly sure of another
    class outweigh the one who is right.

    Args:
        teachers: Answers of the cohort.
        labels: The true classes int64 [N], -1 where there is none; None, as on the test set: all
            are trusted alike, as where there is none.

    Returns:
        Scores in [0, 1] [K, N].
    """
    if labels is None:
        return uniform(teachers)
    probs = teachers.logits.softmax(-1)
    true = probs.take_along_dim(labels.clamp_min(0)[None, :, None], -1)[..., 0]
    return torch.where(labels >= 0, true, 1.0)


@of_probabilities
def above_chance(
    teachers: Answers, *, calibration: Calibration, margin: Annotated[float, "in [0, 1)"] = 0.0
) -> Tensor:
    """Trust alike the teachers that labelled proxy examples show to be better than chance.

    Args:
        teachers: Answers of the cohort.
        calibration: As of `validation_accuracy`.
        margin: By how much their accuracy must exceed 1 / C, in [0, 1).

    Returns:
        Scores 0 or 1, [K, N]; 1 where nobody is better.

    Raises:
        ValueError: The margin is out of range.

    Reference: the option to drop the worst in FedDF's code, Lin et al., NeurIPS 2020
    (arXiv:2006.07242).
    """
    if not 0 <= margin < 1:
        raise ValueError(f"strategy.scorer.margin={margin}: expected in [0, 1)")
    accuracy = validation_accuracy(teachers, calibration=calibration)
    better = accuracy > 1 / teachers.logits.shape[-1] + margin
    return (better | ~better.any(0)).float()


@of_probabilities
def max_prob(teachers: Answers) -> Tensor:
    """Trust a teacher by the probability of its most likely class.

    Args:
        teachers: Answers of the cohort.

    Returns:
        Scores in [1 / C, 1], [K, N].
    """
    return teachers.logits.softmax(-1).amax(-1)


@of_probabilities
def entropy(teachers: Answers) -> Tensor:
    """Trust a teacher by exp(-H) of its answer, H the entropy in nats.

    Args:
        teachers: Answers of the cohort.

    Returns:
        Scores in [1 / C, 1], [K, N]; 1 / exp(H) is one over the effective number of classes.
    """
    entropies: Tensor = torch.special.entr(teachers.logits.softmax(-1)).sum(-1)
    return (-entropies).exp()


@of_probabilities
def margin(teachers: Answers) -> Tensor:
    """Trust a teacher by the gap between its two most likely classes.

    Args:
        teachers: Answers of the cohort.

    Returns:
        Scores in [0, 1], [K, N].
    """
    top2 = teachers.logits.softmax(-1).topk(2, dim=-1).values
    return top2[..., 0] - top2[..., 1]


@of_probabilities
def variance(teachers: Answers) -> Tensor:
    """Trust a teacher by the variance of its probabilities over the classes: Fed-ET's confidence.

    As it is commonly recalled, of the softmax.

    Args:
        teachers: Answers of the cohort.

    Returns:
        Scores in [0, (C - 1) / C**2], [K, N]; 0 where it says that all classes are alike.

    Reference: Cho et al., "Heterogeneous ensemble knowledge transfer for training large models in
    federated learning", IJCAI 2022 (arXiv:2204.12703).
    """
    return teachers.logits.softmax(-1).var(-1, correction=0)


@for_discriminators()
def own_probability(teachers: Answers) -> Tensor:
    """Trust a teacher by its discriminator's probability c that the example is of its own kind.

    The rule commonly recalled for DLAD, without a source at hand; DaFKD's, with published code.

    Args:
        teachers: Answers of the cohort, with `own_probs`.

    Returns:
        Scores in (0, 1], [K, N].

    Raises:
        ValueError: The strategy asked for no discriminator.
    """
    return _own_probs(teachers)


@for_discriminators(False, "balanced odds lack n_k; scorer num_examples_own_odds puts it back")
def own_odds(teachers: Answers) -> Tensor:
    """Trust a teacher by the odds c / (1 - c) of its discriminator.

    With plain cross-entropy the odds tend to n_k p_k(x) / (m p_proxy(x)), so that normalised over
    teachers they are Pr(client k | x), and the weighted mean of the teachers' probabilities is the
    label posterior of the pooled data (`docs/dlad.md`).

    Args:
        teachers: Answers of the cohort, with `own_probs`.

    Returns:
        Scores > 0 [K, N].

    Raises:
        ValueError: The strategy asked for no discriminator.
    """
    probs = _own_probs(teachers)
    return probs / (1 - probs)


@for_discriminators(True, "in others a threshold of 0.5 is not in the middle, it moves with n_k")
def own_selection(teachers: Answers, *, threshold: Annotated[float, "in (0, 1)"] = 0.5) -> Tensor:
    """Trust a teacher on the examples that its discriminator takes for its own kind, and no other.

    Own-distribution selection as in IDKD, whose detector of foreign examples is another one; what
    nobody selects is dropped. Only balanced discriminators have 0.5 in the middle.

    Args:
        teachers: Answers of the cohort, with `own_probs`.
        threshold: Least probability, in (0, 1).

    Returns:
        Scores 0 or 1, [K, N].

    Raises:
        ValueError: The strategy asked for no discriminator, or the threshold is out of range.

    Reference:
        Ravikumar, Saha, Aketi, Roy, "Homogenizing Non-IID Datasets via In-Distribution Knowledge
        Distillation for Decentralized Learning", arXiv:2304.04326.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold={threshold}: expected in (0, 1)")
    return (_own_probs(teachers) >= threshold).float()


@of_probabilities
@for_discriminators(True, "in others a threshold is not a share, it moves with n_k")
def unambiguous_selection(
    teachers: Answers,
    *,
    phase: str = "distil",
    threshold: Annotated[float, "in (0, 1)"] = 0.25,
    ambiguity: Annotated[float, "in (0, 2]"] = 2.0,
) -> Tensor:
    """Trust teachers as `own_selection`, and on examples of which they agree, as Selective-FD.

    An example is dropped where the L1 distance of the mean of the probabilities of those who select
    it to the nearest one-hot label reaches a bound. The test set is not thinned out.

    Args:
        teachers: Answers of the cohort, with `own_probs`.
        phase: "distil" or "test".
        threshold: Least probability, in (0, 1): with a confidence that is a share of own examples
            the client's own quantile.
        ambiguity: The bound, in (0, 2]: no distance is 2, so that 2 drops none.

    Returns:
        Scores 0 or 1, [K, N].

    Raises:
        ValueError: The strategy asked for no discriminator, or a number is out of range.

    Reference: Shao, Wu, Zhang, "Selective knowledge sharing for privacy-preserving federated
    distillation without a good teacher", Nature Communications 2024 (arXiv:2304.01731).
    """
    if not 0 < ambiguity <= 2:
        raise ValueError(f"strategy.scorer.ambiguity={ambiguity}: expected in (0, 2]")
    scores = own_selection(teachers, threshold=threshold) * teachers.mask
    if phase == "test" or ambiguity == 2:
        return scores
    probs = (scores[..., None] * teachers.logits.softmax(-1)).sum(0)
    likeliest = probs.amax(-1) / scores.sum(0).clamp_min(1)
    return scores * (2 * (1 - likeliest) < ambiguity)


@for_discriminators(True, "plain odds have n_k in them, it would count twice; take scorer own_odds")
def num_examples_own_odds(teachers: Answers) -> Tensor:
    """Trust a teacher by n_k times its discriminator's odds.

    The same weights as `own_odds` when discriminators are fitted by balanced cross-entropy, whose
    odds do not contain n_k.

    Args:
        teachers: Answers of the cohort, with `own_probs`.

    Returns:
        Scores > 0 [K, N].

    Raises:
        ValueError: The strategy asked for no discriminator.
    """
    return num_examples(teachers) * own_odds(teachers)


def _own_probs(teachers: Answers) -> Tensor:
    if teachers.own_probs is None:
        needed = "set strategy/discriminator=features or strategy/discriminator=pixels"
        raise ValueError(f"this scorer needs each client's discriminator: {needed}")
    return teachers.own_probs.clamp(PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
