"""Tries a strategy's rules on made-up answers, before any client has trained."""

import inspect
from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from clients.data import Dataset
from clients.execution.trainer_calls import require_objectives
from clients.messages.answers import Answers, Stacked
from clients.messages.field import as_they_are
from clients.messages.replies import PredictionReply, write_reply
from clients.messages.shipped_fields import LOGITS, rehearse_codec
from clients.population.rehearsal import rehearse_learning
from clients.training.loop import Trainer
from clients.training.objective import DistillationLoss, Objective, with_temperature
from clients.training.task_objectives import of_examples
from strategies.aggregation.ensemble import EnsembleRule
from strategies.aggregation.rule_arguments import made_up_arguments, wanted
from strategies.aggregation.scorer_compatibility import needs_probabilities
from strategies.aggregation.streaming import read_part
from strategies.teaching.student import anchors_of

TEACHERS, INPUTS, MOST_ROWS = 3, 24, 2**14

LARGEST = 1e3
"""Of made-up numbers of other fields: a scorer may look across clients beyond 1 only."""


def rehearse(rule: EnsembleRule, num_classes: int, sites: int = 1) -> Tensor:
    """See that a rule makes soft labels.

    Args:
        rule: Of the ensemble.
        num_classes: C.
        sites: Rows of answers of each input.

    Returns:
        Those of made-up answers.

    Raises:
        ValueError: It does not.
    """
    rule = deepcopy(rule)  # one with a state must not see made-up answers
    if not rule.soft:
        _require_numbers(rule, num_classes, sites)
    for name, each in rule.fields.items():
        own = f"strategy.ask.{name}: its codec"
        key = "strategy.ensemble.answers" if name == LOGITS else own
        rehearse_codec(name, each, num_classes, key)
    answers = made_up(rule, num_classes, sites)
    return rule(answers, np.arange(0), known=made_up_arguments(answers)).targets


def _require_numbers(rule: EnsembleRule, num_classes: int, sites: int) -> None:
    """Refuse rules of probabilities where answers are numbers; ValueError names the rule."""
    if needs_probabilities(rule.scorer):
        raise ValueError(
            "strategy.scorer: it looks at probabilities of classes, and answers to a regression "
            "are numbers: expected one that does not, such as strategy/scorer=uniform"
        )
    one = made_up(rule, num_classes, sites).logits[:1]
    even = torch.full((2, one.shape[1]), 0.5)
    agreed = rule.combiner(torch.cat([one, one]), even, rule.temperature)
    if not _close(agreed, one[0]):
        raise ValueError(
            "strategy.combiner: of two answers that are the same it makes another, and answers to "
            "a regression are numbers: expected strategy/combiner=mean_of_outputs"
        )


def rehearse_loss(
    rule: EnsembleRule, loss: DistillationLoss, num_classes: int, sites: int = 1
) -> None:
    """See that a rule and a loss work together.

    Args:
        rule: Of the ensemble.
        loss: The student's; an objective is left to `rehearse_student`, for it needs a network.
        num_classes: C.
        sites: Rows of answers of each input.

    Raises:
        ValueError: Losses have the wrong shape.
    """
    targets = rehearse(rule, num_classes, sites)
    logits = torch.zeros_like(targets)
    if isinstance(loss, Objective):
        return
    if not rule.soft:
        least, more = (loss(y, targets, temperature=1.0) for y in (targets, targets + 1))
        if not bool((least < more).all()):  # NaN is not either
            raise ValueError(
                "strategy.loss: it is not least where a student answers its targets, which for a "
                "regression are numbers: expected one of numbers, strategy/loss=mse"
            )
    losses = deepcopy(loss)(logits, targets, temperature=rule.temperature)
    if losses.shape != (number := (len(logits),)):
        raise ValueError(
            f"strategy.loss gave shape {tuple(losses.shape)} for {len(logits)} examples: expected "
            f"{number}"
        )


def rehearse_student(
    distil: Trainer,
    student: nn.Module,
    proxy: Dataset,
    loss: DistillationLoss,
    rule: EnsembleRule,
) -> None:
    """See that a student can learn from soft labels; one that cannot be copied is left alone.

    Args:
        distil: Trains it.
        student: The student; left as it is.
        proxy: What it will learn from.
        loss: What it minimises.
        rule: Of the ensemble, whose made-up answers are the objective's anchors; where fields are
            of any size, such an objective is not tried.

    Raises:
        ValueError: It cannot, or its trainer knows no objectives.
    """
    if isinstance(loss, Objective):
        require_objectives(distil, "strategy.distil")
    try:  # a state must not see a try
        student, loss = deepcopy((student, loss))
    except Exception:  # a network, say, that holds what it computed
        return
    task, num_classes = proxy.task, proxy.task.num_classes
    objective = of_examples(with_temperature(loss, rule.temperature), task)
    targets = task.by_input(torch.full((2 * task.sites, num_classes), 1 / num_classes))
    if isinstance(objective, Objective) and objective.anchors:
        if any(None in each.shape for each in rule.ask.values()):
            return
        made = deepcopy(rule)(made_up(rule, num_classes, task.sites), np.arange(0), True)
        two = replace(made, covered=torch.arange(len(made.covered)) < 2 * task.sites)
        distil = partial(distil, anchors=anchors_of(objective, two, student))
        targets = two.targets_by_input
    with torch.random.fork_rng():  # dropout on a GPU draws from that one's
        who = "strategy.distil: the student"
        rehearse_learning(distil, student, proxy, targets, objective, who)


def is_reducible(rule: EnsembleRule, num_classes: int, sites: int = 1) -> bool:
    """Tell whether targets can be summed up in parts, where the answers are made.

    They can if the combiner is a weighted mean, no cap looks across teachers, fields that are asked
    for beside logits are one number for each input, and the scorer is a plain function that names
    nothing beside the answers, and whose score of a client and an example depends on nothing but
    its own answer to it. The last is not taken on trust: scores of a made-up cohort must be those
    of its answers one by one, its answers be left as they were, and the targets the same both ways.

    Args:
        rule: Of the ensemble; has been rehearsed.
        num_classes: C.
        sites: Rows of answers of each input; what is summed at a time is rows of whole inputs.

    Returns:
        Whether `rule.reducer` may be used.
    """
    scorer = rule.scorer.func if isinstance(rule.scorer, partial) else rule.scorer
    # What is no function may have a state, and workers have copies of their own.
    if rule.mean is None or rule.weight_cap < 1 or not inspect.isfunction(scorer):
        return False
    if any(each.shape != ("N",) for each in rule.ask.values()) or wanted(rule.scorer):
        return False
    # A lossy codec says nothing of the scorer.
    rule = replace(rule, ask=as_they_are(rule.ask), answers="float32")
    sizes = (1.0, LARGEST) if rule.ask else (1.0,)
    return all(_same_in_parts(rule, num_classes, sites, largest) for largest in sizes)


def _same_in_parts(rule: EnsembleRule, num_classes: int, sites: int, largest: float) -> bool:
    """Try it on made-up answers, of which other fields are in [0, largest)."""
    teachers = made_up(rule, num_classes, sites, largest)
    try:
        together = rule.scorer(teachers)
        alone = _scores_one_by_one(rule, teachers)
    except Exception:  # whatever it needs the others for, or cannot bear
        return False
    untouched = made_up(rule, num_classes, sites, largest)
    pairs = zip(teachers.fields.values(), untouched.fields.values(), strict=True)
    if not all(torch.equal(*map(_whole, pair)) for pair in pairs):
        return False
    if not _close(together, alone):
        return False
    return _close(_folded(rule, teachers), rule(untouched, np.arange(0)).targets)


def made_up(rule: EnsembleRule, num_classes: int, sites: int = 1, largest: float = 1.0) -> Answers:
    """Return answers of three clients, timid and bold, some masked, some about the unknown.

    Args:
        rule: Of the ensemble; says what is asked for.
        num_classes: C.
        sites: Rows of answers of each input.
        largest: Fields that are asked for beside logits are in [0, largest).

    Returns:
        The answers.
    """
    rng, inputs = torch.Generator().manual_seed(0), _num_inputs(sites)
    shape, rows = (TEACHERS, inputs), inputs * sites
    sizes = 10 ** torch.linspace(-1, 1.5, rows)[torch.randperm(rows, generator=rng)]
    known = 10 ** torch.linspace(-5, 0, inputs)
    made = {}
    for name, each in rule.ask.items():
        made[name] = each.made_up(TEACHERS, inputs, num_classes, largest, sites)
        if each.shape == ("N",):
            made[name] = made[name].repeat_interleave(sites, 1)
    logits = torch.randn(TEACHERS, rows, num_classes, generator=rng) * sizes[:, None]
    mask = (torch.rand(shape, generator=rng) < 0.8).repeat_interleave(sites, 1)
    own = (torch.rand(shape, generator=rng) * known).repeat_interleave(sites, 1)
    return Answers(
        client_ids=tuple(range(TEACHERS)),
        logits=logits,
        mask=mask,
        own_probs=own if rule.discriminator else None,
        num_examples=torch.tensor([7.0, 40.0, 900.0]),
        per_input={name: made[name] for name, each in rule.ask.items() if each.per_input},
        per_client={name: made[name] for name, each in rule.ask.items() if not each.per_input},
        sites=sites,
        soft=rule.soft,
    )


def _num_inputs(sites: int) -> int:
    return max(2, min(INPUTS, MOST_ROWS // sites))


def _scores_one_by_one(rule: EnsembleRule, teachers: Answers) -> Tensor:
    inputs = _num_inputs(teachers.sites)
    rows = [
        torch.cat([rule.scorer(teachers.of(k).at(slice(n, n + 1)))[0] for n in range(inputs)])
        for k in range(TEACHERS)
    ]
    return torch.stack(rows)


def _folded(rule: EnsembleRule, teachers: Answers) -> Tensor:
    """Make the targets from sums: of two groups of clients, half of the examples at a time."""
    reducer, halves = rule.reducer(np.arange(0)), []
    inputs = _num_inputs(teachers.sites)
    for rows in (slice(0, inputs // 2), slice(inputs // 2, inputs)):
        alone = [_reply(teachers.of(k).at(rows)) for k in range(TEACHERS)]
        contents = [write_reply(reply, rule.ask) for reply in alone]
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
        fields={name: teacher[name][0].numpy() for name in teacher.per_input},
        sites=teacher.sites,
    )


def _whole(field: Stacked) -> Tensor:
    assert isinstance(field, Tensor), "made-up clients are alike"
    return field


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one.double(), other.double(), rtol=1e-4, atol=1e-5)
