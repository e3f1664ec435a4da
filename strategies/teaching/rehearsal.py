"""Tries a strategy's rules on made-up answers, before any client has trained."""

import inspect
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from clients.data import Dataset
from clients.execution.trainers import require_objectives
from clients.messages.answers import Answers
from clients.messages.requests import PredictionReply, write_reply
from clients.population.rehearsal import rehearse_learning
from clients.training.loop import Trainer
from clients.training.objective import DistillationLoss, Objective, with_temperature
from strategies.aggregation.ensemble import EnsembleRule
from strategies.aggregation.streaming import read_part

TEACHERS, INPUTS = 3, 24


def rehearse(rule: EnsembleRule, num_classes: int) -> Tensor:
    """See that a rule makes soft labels.

    Args:
        rule: Of the ensemble.
        num_classes: C.

    Returns:
        Those of made-up answers.

    Raises:
        ValueError: It does not.
    """
    rule = deepcopy(rule)  # one with a state must not see made-up answers
    return rule(made_up(num_classes, rule.discriminator is not None), np.arange(0)).targets


def rehearse_loss(rule: EnsembleRule, loss: DistillationLoss, num_classes: int) -> None:
    """See that a rule and a loss work together.

    Args:
        rule: Of the ensemble.
        loss: The student's; an objective is left to `rehearse_student`, for it needs a network.
        num_classes: C.

    Raises:
        ValueError: Losses have the wrong shape.
    """
    logits, targets = torch.zeros(INPUTS, num_classes), rehearse(rule, num_classes)
    if isinstance(loss, Objective):
        return
    losses = deepcopy(loss)(logits, targets, temperature=rule.temperature)
    if losses.shape != (INPUTS,):
        raise ValueError(
            f"strategy.loss gave shape {tuple(losses.shape)} for {INPUTS} examples: expected "
            f"{(INPUTS,)}"
        )


def rehearse_student(
    distil: Trainer,
    student: nn.Module,
    proxy: Dataset,
    loss: DistillationLoss,
    num_classes: int,
    temperature: float,
) -> None:
    """See that a student can learn from soft labels; one that cannot be copied is left alone.

    Args:
        distil: Trains it.
        student: The student; left as it is.
        proxy: What it will learn from.
        loss: What it minimises.
        num_classes: C.
        temperature: T > 0.

    Raises:
        ValueError: It cannot, or its trainer knows no objectives.
    """
    if isinstance(loss, Objective):
        require_objectives(distil, "strategy.distil")
    try:  # a state must not see a try
        student, loss = deepcopy((student, loss))
    except Exception:  # a network, say, that holds what it computed
        return
    objective = with_temperature(loss, temperature)
    with torch.random.fork_rng():  # dropout on a GPU draws from that one's
        who = "strategy.distil: the student"
        targets = torch.full((2, num_classes), 1 / num_classes)
        rehearse_learning(distil, student, proxy, targets, objective, who)


def is_reducible(rule: EnsembleRule, num_classes: int) -> bool:
    """Tell whether targets can be summed up in parts, where the answers are made.

    They can if the combiner is a weighted mean, no cap looks across teachers, and the scorer is a
    plain function whose score of a client and an example depends on nothing but its own answer to
    it. The last is not taken on trust: scores of a made-up cohort must be those of its answers one
    by one, its answers be left as they were, and the targets the same both ways.

    Args:
        rule: Of the ensemble; has been rehearsed.
        num_classes: C.

    Returns:
        Whether `rule.reducer` may be used.
    """
    scorer = rule.scorer.func if isinstance(rule.scorer, partial) else rule.scorer
    # What is no function may have a state, and workers have copies of their own.
    if rule.mean is None or rule.weight_cap < 1 or not inspect.isfunction(scorer):
        return False
    discriminator = rule.discriminator is not None
    teachers = made_up(num_classes, discriminator)
    together = rule.scorer(teachers)
    try:
        alone = _scores_one_by_one(rule, teachers)
    except Exception:  # whatever it needs the others for
        return False
    untouched = made_up(num_classes, discriminator)
    if not (torch.equal(teachers.logits, untouched.logits) and _close(together, alone)):
        return False
    return _close(_folded(rule, teachers), _unfolded(rule, untouched))


def made_up(num_classes: int, discriminator: bool) -> Answers:
    """Return answers of three clients, timid and bold, some masked, some about the unknown."""
    rng = torch.Generator().manual_seed(0)
    shape = (TEACHERS, INPUTS)
    sizes = 10 ** torch.linspace(-1, 1.5, INPUTS)[torch.randperm(INPUTS, generator=rng)]
    known = 10 ** torch.linspace(-5, 0, INPUTS)
    return Answers(
        client_ids=tuple(range(TEACHERS)),
        logits=torch.randn(*shape, num_classes, generator=rng) * sizes[:, None],
        mask=torch.rand(shape, generator=rng) < 0.8,
        own_probs=torch.rand(shape, generator=rng) * known if discriminator else None,
        num_examples=torch.tensor([7.0, 40.0, 900.0]),
    )


def _scores_one_by_one(rule: EnsembleRule, teachers: Answers) -> Tensor:
    rows = [
        torch.cat([rule.scorer(_one(teachers, k, slice(n, n + 1)))[0] for n in range(INPUTS)])
        for k in range(TEACHERS)
    ]
    return torch.stack(rows)


def _one(teachers: Answers, k: int, rows: slice) -> Answers:
    own = teachers.own_probs
    return Answers(
        client_ids=teachers.client_ids[k : k + 1],
        logits=teachers.logits[k : k + 1, rows],
        mask=teachers.mask[k : k + 1, rows],
        own_probs=None if own is None else own[k : k + 1, rows],
        num_examples=teachers.num_examples[k : k + 1],
    )


def _unfolded(rule: EnsembleRule, teachers: Answers) -> Tensor:
    return rule(teachers, np.arange(0)).targets


def _folded(rule: EnsembleRule, teachers: Answers) -> Tensor:
    """Make the targets from sums: of two groups of clients, half of the examples at a time."""
    reducer, halves = rule.reducer(np.arange(0)), []
    for rows in (slice(0, INPUTS // 2), slice(INPUTS // 2, INPUTS)):
        contents = [write_reply(_reply(_one(teachers, k, rows))) for k in range(TEACHERS)]
        part = reducer.merge([reducer.fold(contents[:2]), reducer.fold(contents[2:])])
        halves.append(rule(read_part(part), np.arange(0)).targets)
    return torch.cat(halves)


def _reply(teacher: Answers) -> PredictionReply:
    own = teacher.own_probs
    return PredictionReply(
        server_round=0,
        client_id=teacher.client_ids[0],
        inputs_crc32=0,
        num_examples=int(teacher.num_examples[0]),
        logits=teacher.logits[0].numpy(),
        own_probs=None if own is None else own[0].numpy(),
        mask=teacher.mask[0].numpy(),
        metrics={},
    )


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one.double(), other.double(), rtol=1e-4, atol=1e-5)
