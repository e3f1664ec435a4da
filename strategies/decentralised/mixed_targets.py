"""What neighbours' answers come to: soft labels of a receiver's own, where the receiver is.

A mix is given the receiver and its letters with their payloads; it returns the records that the
receiver's message gets. With mixing weights W_ij and scores s_j(x) the weight of neighbour j is
W_ij s_j(x) / sum_l W_il s_l(x) ("gossip distillation", ours; with a complete graph and equal
weights it is the server's).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import ArrayRecord, Message, RecordDict
from torch import Tensor

from clients.handlers.peer_targets import SUMS
from clients.handlers.reply_faults import MAX_PARAMETER
from clients.messages import shipped_fields as shipped
from clients.messages.answers import Answers, rows_at
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.field import NO_FIELDS, Fields, as_they_are
from clients.messages.payload_routing import Letter
from clients.messages.replies import read_reply, stack_answers, write_reply
from clients.messages.requests import CONFIG, PREDICTIONS, TARGETS
from strategies.aggregation.combiners import WeightedMean
from strategies.aggregation.ensemble import EnsembleRule
from strategies.aggregation.normalisation import masked
from strategies.aggregation.targets import covered_inputs, targets_by_input

Ids = npt.NDArray[np.int64]
Letters = Sequence[tuple[Letter, RecordDict]]


def on_probes(content: RecordDict, *, probe: Ids, fields: Fields) -> RecordDict:
    """Reduce a predictions reply to its answers to some of the examples.

    Args:
        content: Of the reply.
        probe: Positions of the examples [P].
        fields: What was asked for beside logits and a discriminator's probabilities.

    Returns:
        The same kind of content for P answers, all as it is: nothing is rounded or noised again.
    """
    reply = read_reply(content, fields)
    rows = np.asarray(rows_at(torch.from_numpy(probe), reply.sites))
    shown = replace(
        reply,
        logits=reply.logits[rows],
        own_probs=None if reply.own_probs is None else reply.own_probs[rows],
        mask=None if reply.mask is None else reply.mask[rows],
        answers="float32",
        parameters=None,
        fields={
            name: array[rows if len(array) == len(reply.logits) else probe]
            if fields[name].per_input
            else array
            for name, array in reply.fields.items()
        },
    )
    return write_reply(shown, as_they_are(fields))


def fault_in_size(request: Message, reply: Message, *, fields: Fields = NO_FIELDS) -> str | None:
    """Say why answers cannot be summed up, to be mixed again; None if they can.

    Args:
        request: Not looked at.
        reply: A predictions reply.
        fields: What was asked for beside logits, and those where a codec is on them.

    Returns:
        That a logit is too large: times scores of up to 1e16, which odds times numbers of examples
        reach, the sums over all neighbours are to be finite in float32.
    """
    config: Any = reply.content[CONFIG]
    sent = read_arrays(_record(reply.content, PREDICTIONS))
    field = shipped.logits_of(fields, config["answers"])
    if not field.bound(shipped.LOGITS, sent) <= MAX_PARAMETER:
        return f"its logits go beyond {MAX_PARAMETER:.0e}, which cannot be mixed several times"
    return None


def targets_of_answers(
    receiver: int, letters: Letters, *, rule: EnsembleRule, proxy_ids: Ids
) -> RecordDict:
    """Weigh and combine answers.

    Args:
        receiver: Whose targets these are.
        letters: Predictions replies of its neighbours, by sender.
        rule: How.
        proxy_ids: What was answered [N].

    Returns:
        Targets of the examples that somebody covers, and which these are.
    """
    teachers, mixing = _teachers(letters, rule)
    weights = rule.weights(teachers, mixing)
    targets = rule.combined(teachers, weights)
    return _targets(targets, weights.sum(0) > 0, teachers.sites, proxy_ids)


def sums_of_answers(receiver: int, letters: Letters, *, rule: EnsembleRule) -> RecordDict:
    """Sum answers up, to be mixed again: numerators [N, C] and denominators [N] of their mean.

    Args:
        receiver: Whose sums these are.
        letters: Predictions replies of its neighbours, by sender.
        rule: How; its combiner is a weighted mean.

    Returns:
        The sums.
    """
    teachers, mixing = _teachers(letters, rule)
    scores = masked(rule.scorer(teachers), teachers.mask) * mixing[:, None]
    weighted = torch.zeros_like(teachers.logits[0])
    for logits, score in zip(teachers.logits, scores, strict=True):
        weighted += score[:, None] * _mean_of(rule).of(logits, rule.temperature)
    return _sums(weighted, scores.sum(0))


def sums_of_sums(receiver: int, letters: Letters) -> RecordDict:
    """Mix sums again.

    Args:
        receiver: Whose sums these are.
        letters: Its neighbours' sums, by sender.

    Returns:
        The sums.
    """
    return _sums(*_mixed_sums(letters))


def targets_of_sums(
    receiver: int, letters: Letters, *, rule: EnsembleRule, proxy_ids: Ids
) -> RecordDict:
    """Mix sums a last time, and finish the mean; arguments and result as `targets_of_answers`.

    Args:
        receiver: Whose targets these are.
        letters: Its neighbours' sums, by sender.
        rule: As in `sums_of_answers`.
        proxy_ids: What was answered [N].

    Returns:
        Targets of the examples that somebody covers, and which these are.
    """
    weighted, mass = _mixed_sums(letters)
    covered = mass > 0
    mean = weighted / torch.where(covered, mass, 1)[:, None]
    sites = len(covered) // len(proxy_ids)
    return _targets(_mean_of(rule).then(mean, rule.temperature), covered, sites, proxy_ids)


def _teachers(letters: Letters, rule: EnsembleRule) -> tuple[Answers, Tensor]:
    replies = [read_reply(payload, rule.fields) for _, payload in letters]
    teachers = stack_answers([letter.sender for letter, _ in letters], replies, rule.fields)
    return teachers, torch.tensor([letter.weight for letter, _ in letters], dtype=torch.float32)


def _targets(targets: Tensor, covered: Tensor, sites: int, proxy_ids: Ids) -> RecordDict:
    own = targets_by_input(targets, covered, sites)
    there = covered_inputs(covered, sites).numpy()
    arrays = {"proxy-ids": proxy_ids[there], "targets": own.numpy()}
    return RecordDict({TARGETS: write_arrays(arrays)})


def _sums(weighted: Tensor, mass: Tensor) -> RecordDict:
    return RecordDict({SUMS: write_arrays({"weighted": weighted.numpy(), "mass": mass.numpy()})})


def _mixed_sums(letters: Letters) -> tuple[Tensor, Tensor]:
    weighted = mass = torch.zeros(())
    for letter, payload in letters:
        arrays = read_arrays(_record(payload, SUMS))
        weighted = weighted + letter.weight * torch.from_numpy(arrays["weighted"].copy())
        mass = mass + letter.weight * torch.from_numpy(arrays["mass"].copy())
    return weighted, mass


def _mean_of(rule: EnsembleRule) -> WeightedMean:
    assert rule.mean is not None, "the strategy has tried"
    return rule.mean


def _record(content: RecordDict, name: str) -> ArrayRecord:
    record = content[name]
    assert isinstance(record, ArrayRecord), "its name says so"
    return record
