"""Conformance of rules: scorers, combiners, losses, and rules of groups that learn together."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from clients.messages.answers import Answers
from clients.mutual.terms import Shared
from clients.training.losses import kl
from strategies.aggregation.normalisation import normalise
from strategies.aggregation.rule_arguments import made_up_arguments, told
from strategies.conformance.checks import Check, changes, shape_fault, unlike

K, N, C = 4, 12, 5


def answers(clients: int = K, examples: int = N, classes: int = C, seed: int = 0) -> Answers:
    """Make up answers [K, N, C] that are timid and bold, and discriminators' probabilities."""
    rng = torch.Generator().manual_seed(seed)
    bold = 10 ** torch.linspace(-1, 1, examples)[:, None]
    return Answers(
        tuple(range(clients)),
        torch.randn(clients, examples, classes, generator=rng) * bold,
        torch.ones(clients, examples, dtype=torch.bool),
        torch.rand(clients, examples, generator=rng),
        torch.randint(1, 1000, (clients,), generator=rng).float(),
    )


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
    after = scorer(turned, **told(scorer, {**known, "ids": known["ids"][::-1].copy()}))
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


SCORER: tuple[Check, ...] = (
    _scores, _scores_again, _scores_by_client, _scores_by_example, _weighs_alike,
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


COMBINER: tuple[Check, ...] = (_on_the_simplex, _agrees, _silences, _combines_purely)


# --- losses of a student ---


def _pair(classes: int = C) -> tuple[Tensor, Tensor]:
    made = answers(2, N, classes).logits.double().clamp(-8, 8)
    return made[0], made[1].softmax(-1)


def _by_example(loss: Any) -> str | None:
    """Gives the loss of each example [B], which goes with it."""
    logits, targets = _pair()
    values = loss(logits, targets, temperature=2.0)
    if fault := shape_fault(values, (N,)):
        return fault
    order = torch.arange(N).flip(0)
    if unlike(loss(logits[order], targets[order], temperature=2.0), values[order]):
        return "an example's loss depends on its place in the batch, or on the others"
    return None


def _least_at_equality(loss: Any) -> str | None:
    """Is least, with no gradient, where the student answers its targets."""
    logits, targets = _pair()
    if loss(logits, logits, temperature=1.0).abs().max() < 1e-12:  # of numbers
        return None
    at = (targets.log() * 2.0).requires_grad_()
    values = loss(at, targets, temperature=2.0)
    (gradient,) = torch.autograd.grad(values.sum(), at)
    if float(gradient.abs().max()) > 1e-6:
        return f"its gradient is {float(gradient.abs().max()):.3g} there"
    if (loss(logits, targets, temperature=2.0) <= values.detach()).any():
        return "elsewhere it is smaller"
    return None


def _over_classes(loss: Any) -> str | None:
    """Is summed, not averaged, over the classes."""
    for classes in (C, 2 * C):
        logits, targets = _pair(classes)
        found, whole = loss(logits, targets, temperature=1.0), kl(logits, targets, 1.0)
        if unlike(found * classes, whole):
            return None
    return "it is KL divided by the number of classes: sum over them"


def _gradient(loss: Any) -> str | None:
    """Has the gradient that finite differences have."""
    logits, targets = (each[:4].clone() for each in _pair())
    done = torch.autograd.gradcheck(
        lambda z: loss(z, targets, temperature=2.0), logits.requires_grad_(), raise_exception=False
    )
    return None if done else "it has another: is something detached, or rounded, on the way?"


def _bears_confidence(loss: Any) -> str | None:
    """Is finite for a student that is sure, and wrong."""
    logits = torch.tensor([[300.0, -300.0, 0.0]], requires_grad=True)
    value = loss(logits, torch.tensor([[0.0, 1.0, 0.0]]), temperature=1.0)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    finite = bool(value.isfinite().all() and gradient.isfinite().all())
    return None if finite else "loss or gradient is not"


LOSS: tuple[Check, ...] = (
    _by_example, _least_at_equality, _over_classes, _gradient, _bears_confidence,
)  # fmt: skip


# --- rules of groups ---


def _shared() -> tuple[Shared, Tensor]:
    rng = torch.Generator().manual_seed(0)
    said = [2 * torch.randn(6, C, generator=rng) for _ in range(3)]
    stale = [torch.randn(6, C, generator=rng) for _ in range(3)]
    return Shared([each.requires_grad_() for each in said], (), stale), torch.randn(
        6, C, generator=rng
    ).softmax(-1)


def _teaches_each(rule: Any) -> str | None:
    """Gives each peer a finite loss, and a gradient of its own."""
    shared, targets = _shared()
    losses = rule(shared, targets, 1, None).peers
    if len(losses) != 3:
        return f"gives {len(losses)} losses to 3 peers"
    for k, loss in enumerate(losses):
        if loss.shape != () or not bool(loss.isfinite()):
            return f"gives peer {k} {loss}"
        (own,) = torch.autograd.grad(loss, shared.logits[k], retain_graph=True, allow_unused=True)
        if own is None or not own.abs().sum() > 0:
            return f"peer {k} learns nothing"
    return None


def _detaches(rule: Any) -> str | None:
    """Gives a peer that is only a target no gradient."""
    shared, targets = _shared()
    for k, loss in enumerate(rule(shared, targets, 1, None).peers):
        found = torch.autograd.grad(loss, [*shared.logits], retain_graph=True, allow_unused=True)
        for other, gradient in enumerate(found):
            if other != k and gradient is not None and gradient.any():
                return f"peer {k}'s loss moves peer {other}: detach what is imitated"
    return None


RULE: tuple[Check, ...] = (_teaches_each, _detaches)
