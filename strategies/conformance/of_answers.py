"""Conformance of what is made of answers: scorers, combiners, selections."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clients.data import subset
from clients.messages.answers import Answers
from clients.models.factory import build
from clients.points import Check
from strategies.aggregation.normalisation import normalise
from strategies.aggregation.rule_arguments import made_up_arguments, told
from strategies.conformance.checks import changes, shape_fault, unlike
from strategies.conformance.made_up import PRIVATE, SMALL, C, K, N, answers
from strategies.teaching.proxy_split import ProxySplit
from strategies.teaching.selection import selected


def scored(scorer: Any, teachers: Answers) -> Tensor:
    """Let a scorer score, and give it what it names."""
    scores: Tensor = scorer(teachers, **told(scorer, made_up_arguments(teachers)))
    return scores


def combined(combiner: Any, teachers: Answers, weights: Tensor, temperature: float = 1.0) -> Tensor:
    """Let a combiner combine, and give it what it names."""
    known = {"teachers": teachers, **made_up_arguments(teachers)}
    targets: Tensor = combiner(teachers.logits, weights, temperature, **told(combiner, known))
    return targets


# --- scorers ---


def _scores(scorer: Any) -> str | None:
    """Gives scores [K, N], finite and >= 0."""
    for clients, examples in ((K, N), (1, N), (K, 1)):
        scores = scored(scorer, answers(clients, examples))
        if fault := shape_fault(scores, (clients, examples)):
            return fault
        if (scores < 0).any():
            return f"gives {float(scores.min()):.4g}"
    return None


def _scores_again(scorer: Any) -> str | None:
    """Gives the same scores of the same answers, and leaves these as they are."""
    teachers = answers()
    first = scored(scorer, teachers)
    scored(scorer, answers(seed=1))
    if unlike(first, scored(scorer, answers())):
        return "a second call gives others: does it keep something?"
    return changes(lambda logits: scored(scorer, replace(teachers, logits=logits)), teachers.logits)


def _scores_by_client(scorer: Any) -> str | None:
    """Goes with its clients when these change places."""
    teachers, order = answers(), torch.tensor([2, 0, 3, 1])
    assert teachers.own_probs is not None, "made up"
    turned = replace(
        teachers,
        logits=teachers.logits[order],
        own_probs=teachers.own_probs[order],
        num_examples=teachers.num_examples[order],
    )
    if unlike(scored(scorer, turned), scored(scorer, teachers)[order]):
        return "scores stay where they were, or go elsewhere: they go by a client's place"
    return None


def _scores_by_example(scorer: Any) -> str | None:
    """Goes with its examples when these change places: nothing is kept of those of before."""
    teachers, order = answers(), torch.arange(N).flip(0)
    before = scored(scorer, teachers)
    known = made_up_arguments(teachers)
    turned = teachers.at(order)
    back = {"ids": known["ids"][::-1].copy(), "labels": known["labels"].flip(0)}
    after = scorer(turned, **told(scorer, {**known, **back}))
    if unlike(after, before[:, order]):
        return "scores are those of other examples: are ids of a call before used?"
    return None


def _weighs_alike(scorer: Any) -> str | None:
    """Trusts equal teachers alike."""
    one = answers(1)
    assert one.own_probs is not None, "made up"
    equal = replace(
        one,
        client_ids=tuple(range(K)),
        logits=one.logits.expand(K, N, C).clone(),
        mask=one.mask.expand(K, N),
        own_probs=one.own_probs.expand(K, N).clone(),
        num_examples=one.num_examples.expand(K).clone(),
    )
    weights = normalise(scored(scorer, equal), equal.mask)
    covered = weights.sum(0) > 0
    if unlike(weights[:, covered], torch.full((K, int(covered.sum())), 1 / K)):
        return f"weights of four equal teachers are {[round(float(w), 3) for w in weights[:, 0]]}"
    return None


def _scores_the_silent(scorer: Any) -> str | None:
    """Trusts who answers, and who is undecided, whatever lies where a silent teacher's would be."""
    teachers, mask = answers(), torch.ones(K, N, dtype=torch.bool)
    mask[1] = mask[2, : N // 2] = False
    weights, known = list[Tensor](), told(scorer, made_up_arguments(teachers))
    for filling in (0.0, 3.0):
        logits = teachers.logits.clone()
        logits[0, :3] = 0  # undecided
        logits[~mask] = filling * torch.arange(C)
        scores = scorer(replace(teachers, logits=logits, mask=mask), **known)
        if not scores[mask].isfinite().all():
            return "of all-zero logits, or beside a silent teacher, a score is NaN or infinity"
        weights.append(normalise(scores, mask))
    if unlike(weights[0], weights[1]):
        return "what lies in a silent teacher's row changes the others' weights: look at the mask"
    return None


def _bears_a_shift(scorer: Any) -> str | None:
    """Weighs alike if a constant is added to all logits: of their softmax there is none."""
    teachers = answers()
    shift = torch.linspace(-6, 6, N)[None, :, None]
    shifted = replace(teachers, logits=teachers.logits + shift)
    one, other = (normalise(scored(scorer, each), each.mask) for each in (teachers, shifted))
    if unlike(one, other, 1e-4):
        return "weights are others: raw logits have no zero, take their softmax or differences"
    return None


SCORER: tuple[Check, ...] = (
    _scores, _scores_again, _scores_by_client, _scores_by_example, _weighs_alike,
    _scores_the_silent, _bears_a_shift,
)  # fmt: skip


# --- combiners ---


def _of_numbers(combiner: Any) -> bool:
    """Tell whether it combines numbers of a regression: one teacher's come out as they are."""
    one = answers(1)
    return not unlike(combined(combiner, one, torch.ones(1, N)), one.logits[0])


def _on_the_simplex(combiner: Any) -> str | None:
    """Gives soft labels [N, C] that sum to 1: weights are used as they are, and sum to 1."""
    teachers = answers()
    assert teachers.own_probs is not None, "made up"
    weights = normalise(teachers.own_probs + 0.1, teachers.mask)
    for temperature in (0.5, 1.0, 4.0):
        targets = combined(combiner, teachers, weights, temperature)
        if fault := shape_fault(targets, (N, C)):
            return fault
        if _of_numbers(combiner):
            continue
        if float(targets.min()) < -1e-6:
            return f"gives {float(targets.min()):.4g} as a probability"
        if unlike(sums := targets.sum(-1), torch.ones(N)):
            return f"a row sums to {float(sums[(sums - 1).abs().argmax()]):.4g}, expected 1"
    return None


def _agrees(combiner: Any) -> str | None:
    """Makes of equal teachers what it makes of one, whose likeliest class stays so."""
    one = answers(1)
    alone = combined(combiner, one, torch.ones(1, N))
    if not torch.equal(alone.argmax(-1), one.logits[0].argmax(-1)):
        return "of one teacher's answer it makes another class the likeliest"
    same = replace(answers(3), logits=one.logits.expand(3, N, C))
    if unlike(combined(combiner, same, torch.full((3, N), 1 / 3)), alone, 1e-4):
        return "of 3 that say the same it makes something else than of one"
    return None


def _silences(combiner: Any) -> str | None:
    """Leaves out a teacher whose weight is 0."""
    teachers = answers()
    weights = torch.zeros(K, N)
    weights[1:] = 1 / (K - 1)
    other = teachers.logits.clone()
    other[0] = -other[0]
    said = combined(combiner, teachers, weights)
    if unlike(said, combined(combiner, replace(teachers, logits=other), weights)):
        return "what it says still counts"
    return None


def _combines_purely(combiner: Any) -> str | None:
    """Leaves answers and weights as they are, and keeps nothing."""
    teachers, even = answers(), torch.full((K, N), 1 / K)
    first = combined(combiner, teachers, even)
    combined(combiner, answers(seed=1), even)
    if unlike(first, combined(combiner, answers(), even)):
        return "a second call gives other targets: does it keep something?"

    def call(logits: Tensor, weights: Tensor) -> None:
        combined(combiner, replace(teachers, logits=logits), weights)

    return changes(call, teachers.logits, even)


def _softens(combiner: Any) -> str | None:
    """Divides logits by T: the larger it is, the more undecided are targets, unless these vote."""
    if _of_numbers(combiner):
        return None
    one, all_of_it = answers(1), torch.ones(1, N)
    surer = replace(one, logits=3 * one.logits)
    if not unlike(combined(combiner, one, all_of_it), combined(combiner, surer, all_of_it)):
        return None  # they vote: how sure anyone is counts for nothing
    targets = (combined(combiner, one, all_of_it, float(t)) for t in (0.5, 1, 2, 4))
    found = [float(torch.special.entr(each).sum(-1).mean()) for each in targets]
    if any(later < before - 1e-6 for before, later in pairwise(found)):
        return "entropy falls as T grows: is T multiplied by?"
    return None if found[-1] > found[0] + 1e-3 else "T changes nothing: is it left out?"


COMBINER: tuple[Check, ...] = (
    _on_the_simplex, _agrees, _silences, _combines_purely, _softens,
)  # fmt: skip


# --- selections ---


def _selected(selection: Any, examples: int = 40, seed: int = 0) -> Any:
    """Select of the distilled examples of a proxy set; their ids are not their places."""
    proxy = subset(PRIVATE, np.arange(examples))
    split = ProxySplit(proxy=proxy, seed=0, negative_share=0.5, probe_examples=1)
    student = build(SMALL, PRIVATE.task, np.random.default_rng(seed))
    of_round = selected(selection, split, student, 0, 1)
    assert of_round.learned is not None, "of a round"
    return of_round.chunks[0][of_round.learned]


def _selects(selection: Any) -> str | None:
    """Gives positions of some candidates, each once, or a mask, however many there are."""
    for examples in (40, 24, 4):
        _selected(selection, examples)
    return None


def _selects_some(selection: Any) -> str | None:
    """Leaves something out."""
    return "selects all candidates" if len(_selected(selection)) == 20 else None


def _selects_again(selection: Any) -> str | None:
    """Selects the same again of the same round, and keeps nothing."""
    one, other = _selected(selection), _selected(selection)
    return "a second call selects others: another generator?" if unlike(one, other, 0) else None


SELECTION: tuple[Check, ...] = (_selects, _selects_some, _selects_again)
