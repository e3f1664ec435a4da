"""Combiners: the teachers' answers and their weights become targets, soft labels [N, C].

A combiner is a function `(logits [K, N, C], weights [K, N], temperature) -> targets [N, C]`. One
that is a weighted mean says so by being a `WeightedMean`; then the answers need never be in one
place, `strategies/aggregation/streaming.py`. Any other gets them all.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import one_hot


@dataclass(frozen=True)
class WeightedMean:
    """Targets that are `then` of the weighted mean of `of`.

    All three are functions of module level, without a state, that treat every example for itself:
    workers call them on the answers of one client and some of the examples.

    Attributes:
        of: (logits [N, C], T) -> what is averaged [N, C].
        then: (mean [N, C], T) -> targets [N, C].
        fraction: The same as `of`, where that is faster, as a numerator [N, C] and a denominator
            [N, 1]: sums divide the weight instead of each number. None = there is no such form.
    """

    of: Callable[[Tensor, float], Tensor]
    then: Callable[[Tensor, float], Tensor]
    fraction: Callable[[Tensor, float], tuple[Tensor, Tensor]] | None = None

    def __call__(self, logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
        """Combine all answers.

        Sums run in the order of client ids, one teacher at a time, with no [K, N, C] copy.

        Args:
            logits: Answers [K, N, C].
            weights: Trust [K, N], summing to 1 over K, or to 0 where nobody covers the example.
            temperature: T > 0.

        Returns:
            Targets [N, C].
        """
        total = torch.zeros_like(logits[0])
        for answers, weight in zip(logits, weights, strict=True):
            total += weight[:, None] * self.of(answers, temperature)
        return self.then(total, temperature)


def softened(logits: Tensor, temperature: float) -> Tensor:
    """Return softmax(logits / T) of [N, C]."""
    return (logits / temperature).softmax(-1)


def softened_fraction(logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return softmax(logits / T) of [N, C] as exponentials and their sums [N, 1].

    Powers of two and not of e: torch's exp2 takes a fifth of exp's time here (26 to 6 GB/s on a
    core), and beside its softmax over 10 classes, which goes row by row, a fifteenth. The largest
    logit of a row need not be found and subtracted where no sum leaves [2**-60, 2**60]; up to there
    the exponent's rounding makes an error of 1.3e-6 at most.

    Args:
        logits: [N, C].
        temperature: T > 0.

    Returns:
        Numerators [N, C] and denominators [N, 1]; finite for finite logits.
    """
    bits = math.log2(math.e) / temperature
    powers = (logits * bits).exp2_()
    totals = powers.sum(-1, keepdim=True)
    if not 2**-60 < float(totals.min()) <= float(totals.max()) < 2**60:
        powers = (logits - logits.amax(-1, keepdim=True)).mul_(bits).exp2_()
        totals = powers.sum(-1, keepdim=True)
    return powers, totals


def unchanged(values: Tensor, temperature: float) -> Tensor:
    """Return the values [N, C] whatever T."""
    return values


mean_of_probs = WeightedMean(of=softened, then=unchanged, fraction=softened_fraction)
"""Weighted mean of softmax(logits / T): rows on the simplex; zero where nobody covers the
example."""

mean_of_outputs = WeightedMean(of=unchanged, then=unchanged)
"""Weighted mean of what networks say, for the numbers of a regression; zero where nobody covers the
example."""

mean_of_logits = WeightedMean(of=unchanged, then=softened)
"""Softmax of the weighted mean of logits / T, FedDF's and FedAUX's ensemble: rows on the simplex;
uniform where nobody covers the example."""


# --- sharpened means: functions that make a combiner, so bound without `_partial_` ---


def era(era_temperature: Annotated[float, "> 0"] = 0.1) -> WeightedMean:
    """Make DS-FL's combiner, entropy reduction aggregation: softmax(mean of probs / T_era).

    Args:
        era_temperature: T_era > 0, beside the temperature of distillation; below about 0.5 it
            sharpens, above that it may flatten: probabilities differ by 1 at most.

    Returns:
        A weighted mean whose rows are on the simplex; uniform where nobody covers the example.

    Raises:
        ValueError: The number is out of range.

    Reference: Itahara et al., "Distillation-based semi-supervised federated learning", IEEE TMC
    2023 (arXiv:2008.06180); of mean probabilities, as two of three re-implementations have it.
    """
    if not 0 < era_temperature < math.inf:
        raise ValueError(f"strategy.combiner.era_temperature={era_temperature}: expected > 0")
    then = partial(_softmax_of_probs, era_temperature=era_temperature)
    return replace(mean_of_probs, then=then)


def enhanced_era(exponent: Annotated[float, "> 0"] = 2.0) -> WeightedMean:
    """Make SCARLET's combiner, enhanced ERA: p**beta / sum_c p_c**beta of the mean p of probs.

    Args:
        exponent: beta > 0; 1 is the plain mean, more sharpens.

    Returns:
        A weighted mean whose rows are on the simplex; zero where nobody covers the example.

    Raises:
        ValueError: The number is out of range.

    Reference: the code of SCARLET, github.com/kitsuyaazuma/SCARLET.
    """
    if not 0 < exponent < math.inf:
        raise ValueError(f"strategy.combiner.exponent={exponent}: expected > 0")
    return replace(mean_of_probs, then=partial(_power_of_probs, exponent=exponent))


def true_labels(
    logits: Tensor, weights: Tensor, temperature: float, *, labels: Tensor | None
) -> Tensor:
    """Combine nothing: targets are the true classes, where these are known.

    For mutual learning as it was published, on labelled examples, and for a student that learns
    from a labelled public set.

    Args:
        logits: Answers [K, N, C].
        weights: Trust [K, N].
        temperature: T > 0, of those without a label.
        labels: int64 [N], -1 where there is none; None: of none.

    Returns:
        Targets [N, C]: one-hot, or the mean of probabilities.
    """
    means = mean_of_probs(logits, weights, temperature)
    if labels is None:
        return means
    certain = one_hot(labels.clamp_min(0), logits.shape[-1]).to(means.dtype)
    return torch.where((labels >= 0)[:, None], certain, means)


def _softmax_of_probs(probs: Tensor, temperature: float, *, era_temperature: float) -> Tensor:
    return (probs / era_temperature).softmax(-1)


def _power_of_probs(probs: Tensor, temperature: float, *, exponent: float) -> Tensor:
    largest = probs.amax(-1, keepdim=True).clamp_min(torch.finfo(probs.dtype).tiny)
    powers = (probs / largest) ** exponent
    return powers / powers.sum(-1, keepdim=True).clamp_min(1)
