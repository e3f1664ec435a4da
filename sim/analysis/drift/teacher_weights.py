"""Who is trusted, and who deserves it."""

import torch
from torch import Tensor

from sim.analysis.drift.output import entropy


def effective_teachers(weights: Tensor) -> Tensor:
    """Exponential of the weights' entropy: how many teachers, all alike, would be as spread.

    Args:
        weights: Trust [K, N], sums to 1 over K.

    Returns:
        [N] from 1, one decides, to K, all alike.

    Reference:
        Hill, "Diversity and Evenness", 1973, of order 1.
    """
    return entropy(weights, 0).exp()


def weight_mass(weights: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Mean trust in each client over the covered examples of each class.

    Args:
        weights: Trust [K, N]; sums to 1 over K, or to 0 where nobody covers the example.
        labels: Classes [N].
        num_classes: C.

    Returns:
        [K, C]; sums to 1 over K, NaN for a class of which no example is covered.
    """
    members = torch.nn.functional.one_hot(labels, num_classes).double()  # [N, C]
    return weights.double() @ members / (weights.sum(0).double() @ members)


def oracle_correct(correct: Tensor) -> Tensor:
    """Tell which examples the ensemble gets right if the weights know who is right.

    Args:
        correct: Whether each client is right [K, N] bool; False where it did not answer.

    Returns:
        [N] bool.

    Reference:
        The oracle of Kuncheva, "A Theoretical Study on Six Classifier Fusion Strategies", 2002.
    """
    return correct.any(0)


def wrong_but_confident(confidence: Tensor, correct: Tensor, at_least: float) -> Tensor:
    """Tell which answers are wrong and sure.

    Args:
        confidence: Probability of the most likely class [K, N] in [0, 1].
        correct: Whether that class is right [K, N] bool.
        at_least: From which confidence on an answer is sure, in [0, 1].

    Returns:
        [K, N] bool.
    """
    return ~correct & (confidence >= at_least)


def rank_correlation(weights: Tensor, correct: Tensor) -> float | None:
    """Spearman's rank correlation of trust and being right.

    Args:
        weights: Trust [n] in the answers.
        correct: Whether each is right [n] bool.

    Returns:
        In [-1, 1]; None where all weights are equal, or all answers right, or none.

    Reference:
        Spearman, "The Proof and Measurement of Association between Two Things", 1904.
    """
    if (
        len(weights) < 2
        or not (weights != weights[0]).any()
        or not 0 < correct.sum() < len(correct)
    ):
        return None
    from scipy.stats import spearmanr  # here: it takes a second to import

    return float(spearmanr(weights.double().numpy(), correct.double().numpy()).statistic)
