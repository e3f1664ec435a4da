"""All teachers combined: from the answers of a cohort, or their sums, to the student's targets."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients.messages.accumulator import Reducer
from clients.messages.answers import Answers, rows_at
from clients.messages.codecs import Codec, Precision, codec_of
from clients.messages.field import Fields
from clients.messages.own_probs import confidence
from clients.messages.shipped_fields import LOGITS, OWN_PROBS, check_names, logits
from clients.models.confidence import NEGATIVES, Confidence, require_confidence
from clients.models.discriminator import DiscriminatorRecipe
from clients.signatures import names
from strategies.aggregation.combiners import WeightedMean
from strategies.aggregation.normalisation import normalise, unless_unknown
from strategies.aggregation.rule_arguments import NOTHING, Known, require_offered, told
from strategies.aggregation.scorer_compatibility import require_discriminator
from strategies.aggregation.streaming import AnswerSums, Part, Scorer, targets_of
from strategies.aggregation.targets import (
    covered_inputs,
    no_numbers,
    off_simplex,
    targets_by_input,
)

Combiner = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Ensemble:
    """What a cohort's answers to N inputs came to.

    Attributes:
        targets: Soft labels [N, C], or of a regression numbers; N rows of answers.
        covered: Which of them at least one teacher is trusted on [N].
        teachers: The answers to the probe inputs, P rows.
        weights: Trust on those [K, P].
        whole: All answers, and the trust on them [K, N]; None where they were not to be kept.
    """

    targets: Tensor
    covered: Tensor
    teachers: Answers
    weights: Tensor
    whole: tuple[Answers, Tensor] | None = None

    @property
    def covered_inputs(self) -> Tensor:
        """Of which inputs there is something to learn [N/S] bool."""
        return covered_inputs(self.covered, self.teachers.sites)

    @property
    def targets_by_input(self) -> Tensor:
        """What there is to learn of those; see the function of this name."""
        return targets_by_input(self.targets, self.covered, self.teachers.sites)


@dataclass(frozen=True, eq=False)
class EnsembleRule:
    """How a cohort answers, and how answers become targets.

    Attributes:
        scorer: Answers -> scores [K, N]. Where it looks at one client and one example at a time and
            the combiner is a weighted mean, answers are summed where they are made.
        combiner: Logits [K, N, C], weights [K, N], T -> targets [N, C]. Both get what they name of
            `strategies.aggregation.rule_arguments`.
        discriminator: How clients tell own from proxy examples, or a function of their networks
            that says how far they know each; None = they need not.
        temperature: T > 0 of combiner and loss.
        weight_cap: Largest weight of one client on one example, in (0, 1].
        fallback_below: Where clients fit discriminators, and even the largest probability of the
            cohort that an example is a client's own is below this, in [0, 1], nobody knows the
            example, the scores are noise, and all teachers are trusted alike.
        answers: How clients send logits, one of `clients.messages.codecs.ANSWERS`, or a codec.
        ask: Fields that clients are asked for beside logits, by name.
        soft: Whether targets are to be soft labels; of a regression they are numbers.
    """

    scorer: Scorer
    combiner: Combiner
    discriminator: DiscriminatorRecipe | Confidence | None = None
    temperature: Annotated[float, "> 0"] = 1.0
    weight_cap: Annotated[float, "in (0, 1]"] = 1.0
    fallback_below: Annotated[float, "in [0, 1]"] = 1e-3
    answers: Codec | str = "float32"
    ask: Fields = field(default_factory=dict)
    soft: bool = True

    def __post_init__(self) -> None:
        """Refuse what is out of range, or does not go together; ValueError names the key."""
        key = "strategy.ensemble"
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(f"{key}.temperature={self.temperature}: expected > 0 and finite")
        if not 0 < self.weight_cap <= 1:
            raise ValueError(f"{key}.weight_cap={self.weight_cap}: expected in (0, 1]")
        if not 0 <= self.fallback_below <= 1:
            raise ValueError(f"{key}.fallback_below={self.fallback_below}: expected in [0, 1]")
        codec = codec_of(self.answers, key=f"{key}.answers: ")
        object.__setattr__(self, "answers", codec.kind if isinstance(codec, Precision) else codec)
        if not isinstance(self.ask, Mapping):
            raise ValueError(
                "strategy.ask: expected a name over each field, as in energy: {_target_: ...}"
            )
        object.__setattr__(self, "ask", dict(self.ask))  # no library's mapping: it is sent along
        check_names(self.ask, "strategy.ask")
        require_discriminator(self.scorer, self.discriminator, "strategy")
        if self.confidence is not None:
            require_confidence(self.confidence)
        require_offered(self.scorer, 1, "strategy.scorer")
        require_offered(self.combiner, 3, "strategy.combiner", "teachers")

    @property
    def unknown_below(self) -> float | None:
        """Below which own_probs says nothing; None where clients fit no discriminator."""
        return None if self.discriminator is None else self.fallback_below

    @property
    def recipe(self) -> DiscriminatorRecipe | None:
        """How clients fit discriminators; None = they fit none."""
        told = self.discriminator
        return told if isinstance(told, DiscriminatorRecipe) else None

    @property
    def confidence(self) -> Confidence | None:
        """The function in the place of a discriminator; None = there is none."""
        told = self.discriminator
        return None if isinstance(told, DiscriminatorRecipe) else told

    @property
    def wants_negatives(self) -> bool:
        """Whether clients need proxy examples to tell their own from."""
        return self.recipe is not None or self.compares

    @property
    def compares(self) -> bool:
        """Whether they need them for each answer; a discriminator is fitted once in a round."""
        function = self.confidence
        return function is not None and names(function, NEGATIVES)

    @property
    def sent_as(self) -> str:
        """How answers are sent, by name."""
        return self.answers if isinstance(self.answers, str) else type(self.answers).__name__

    @property
    def fields(self) -> Fields:
        """What clients are asked for beside logits and a discriminator's probabilities.

        These two as well, where a codec is on logits, and where a function says how sure they are.
        """
        coded = {} if isinstance(self.answers, str) else {LOGITS: logits(self.answers)}
        known = {} if self.confidence is None else {OWN_PROBS: confidence(self.confidence)}
        return {**coded, **known, **self.ask}

    @property
    def stateful(self) -> dict[str, Any]:
        """Rules that may have a state, by the name of their axis."""
        return {"scorer": self.scorer, "combiner": self.combiner}

    def __call__(
        self,
        answers: Part | Answers,
        probe: npt.NDArray[np.int64],
        keep: bool = False,
        known: Known = NOTHING,
    ) -> Ensemble:
        """Weigh and combine.

        Args:
            answers: All of them, or their sums with the answers to the probe inputs.
            probe: Positions of the probe inputs among the N [P].
            keep: Whether the ensemble is to have all answers; only where they were not summed.
            known: What rules may name; only where answers were not summed.

        Returns:
            The ensemble.

        Raises:
            ValueError: The scorer gave scores that are none, or the combiner targets that are none;
                says which.
        """
        if isinstance(answers, Part):
            assert self.mean is not None, "only a weighted mean is ever reduced"
            targets, covered = targets_of(
                answers.sums, self.mean, self.temperature, self.unknown_below
            )
            teachers = self.as_asked(answers.teachers)
            weights = self.weights(teachers) if len(probe) else torch.zeros(teachers.mask.shape)
            return Ensemble(targets, covered, teachers, weights)
        answers = self.as_asked(answers)
        weights = self.weights(answers, known=known)
        targets = self.combined(answers, weights, known)
        inputs, covered = torch.from_numpy(probe), weights.sum(0) > 0
        probed = answers.at(inputs), weights[:, rows_at(inputs, answers.sites)]
        return Ensemble(targets, covered, *probed, (answers, weights) if keep else None)

    def as_asked(self, teachers: Answers) -> Answers:
        """Return answers that tell what they are: beliefs, or numbers; messages do not."""
        return teachers if teachers.soft is self.soft else replace(teachers, soft=self.soft)

    def weights(
        self, teachers: Answers, mixing: Tensor | None = None, known: Known = NOTHING
    ) -> Tensor:
        """Weigh each teacher on each example.

        Args:
            teachers: Whom, and what they answered.
            mixing: What a receiver's graph says of each [K], > 0; None = all alike.
            known: What the scorer may name.

        Returns:
            [K, N], sums over K are 1, or 0 where nobody is trusted.

        Raises:
            ValueError: The scorer gave scores that are none; says which scorer.
        """
        teachers = self.as_asked(teachers)
        scores = self.scorer(teachers, **told(self.scorer, known))
        try:
            below, own = self.unknown_below, teachers.own_probs
            if below is not None and own is not None:
                scores = unless_unknown(scores, own, teachers.mask, below)
            if mixing is not None:
                scores = scores * (mixing / mixing.max())[:, None]  # equal ones are exactly 1
            return normalise(scores, teachers.mask, self.weight_cap)
        except ValueError as error:
            raise ValueError(f"scorer {_name_of(self.scorer)}: {error}") from error

    def combined(self, teachers: Answers, weights: Tensor, known: Known = NOTHING) -> Tensor:
        """Combine all answers, and see that soft labels come of it.

        Args:
            teachers: Whose, and what they answered.
            weights: Trust [K, N]; where it sums to 0 anything may come.
            known: What the combiner may name.

        Returns:
            Targets [N, C]; what is trusted sums to 1 within a thousandth where it is to be `soft`.

        Raises:
            ValueError: The combiner gave something else; says which combiner.
        """
        more = told(self.combiner, {**known, "teachers": teachers})
        targets = self.combiner(teachers.logits, weights, self.temperature, **more)
        off = off_simplex if self.soft else no_numbers
        if reason := off(targets, weights.sum(0) > 0, tuple(teachers.logits.shape[1:])):
            raise ValueError(f"combiner {_name_of(self.combiner)}: {reason}")
        return targets

    @property
    def mean(self) -> WeightedMean | None:
        """The combiner if it is a weighted mean, bare or as `conf/` binds it, else None."""
        return _if_mean(self.combiner)

    def reducer(self, probe: npt.NDArray[np.int64]) -> Reducer:
        """Bind this rule for those who fold; only where `rehearsal.is_reducible` says so."""
        assert self.mean is not None, "only a weighted mean is ever reduced"
        sums = partial(
            AnswerSums,
            scorer=self.scorer,
            mean=self.mean,
            temperature=self.temperature,
            fallback_below=self.unknown_below,
            probe=probe,
            fields=self.fields,
            soft=self.soft,
        )
        return Reducer(sums)


def _name_of(rule: Any) -> str:
    rule = rule.func if isinstance(rule, partial) else rule
    return f"{rule.__module__}.{getattr(rule, '__qualname__', type(rule).__qualname__)}"


def _if_mean(combiner: Any) -> WeightedMean | None:
    if isinstance(combiner, partial) and not combiner.args and not combiner.keywords:
        combiner = combiner.func
    return combiner if isinstance(combiner, WeightedMean) else None
