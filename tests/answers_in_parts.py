"""Answers of made-up teachers, summed in parts and together."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from flwr.app import Message, RecordDict

from clients.handlers.predictions import TRAIN_PREDICTIONS
from clients.messages.answers import Answers
from clients.messages.replies import PredictionReply, write_reply
from clients.messages.requests import node_id_of
from strategies.aggregation import scorers
from strategies.aggregation.combiners import mean_of_logits, mean_of_probs
from strategies.aggregation.ensemble import Ensemble, EnsembleRule
from strategies.aggregation.streaming import gather, read_part
from tests.parts import recipe_for

SCORERS = [
    scorers.uniform,
    scorers.num_examples,
    scorers.max_prob,
    scorers.entropy,
    scorers.margin,
    scorers.own_probability,
    scorers.own_odds,
    scorers.num_examples_own_odds,
]
MEANS = {"probs": mean_of_probs, "logits": mean_of_logits}


def answers(
    num_clients: int,
    num_inputs: int = 9,
    num_classes: int = 5,
    seed: int = 0,
    masked: float = 0.2,
    own: bool = True,
    scale: float = 3.0,
) -> Answers:
    """Make up a cohort; own_probs lie around 1e-3, so that some examples are known to nobody."""
    rng = torch.Generator().manual_seed(seed)
    shape = (num_clients, num_inputs)
    exponents = torch.rand(shape, generator=rng) * 2.5 - 5
    exponents[:, ::2] += torch.rand(num_clients, len(range(0, num_inputs, 2)), generator=rng) * 2.5
    return Answers(
        client_ids=tuple(range(num_clients)),
        logits=torch.randn(*shape, num_classes, generator=rng) * scale,
        mask=torch.rand(shape, generator=rng) >= masked,
        own_probs=10**exponents if own else None,
        num_examples=torch.randint(1, 1000, (num_clients,), generator=rng).float(),
    )


def contents(teachers: Answers, kind: str = "float32") -> list[RecordDict]:
    own = teachers.own_probs
    return [
        write_reply(
            PredictionReply(
                server_round=1,
                client_id=teachers.client_ids[k],
                inputs_crc32=0,
                num_examples=int(teachers.num_examples[k]),
                logits=teachers.logits[k].numpy(),
                own_probs=None if own is None else own[k].numpy(),
                mask=teachers.mask[k].numpy(),
                metrics={},
                answers=kind,
            )
        )
        for k in range(len(teachers.client_ids))
    ]


def rule_of(scorer: Any, mean: Any = mean_of_probs, own: bool = True, **changes: Any) -> Any:
    settings_ = {"combiner": mean, "discriminator": recipe_for(scorer) if own else None}
    return EnsembleRule(scorer, **(settings_ | changes))


def folded(
    rule: EnsembleRule,
    replies: list[RecordDict],
    cuts: list[int],
    probe: list[int] | None = None,
) -> Ensemble:
    positions = np.array(probe or [], dtype=np.int64)
    reducer = rule.reducer(positions)
    edges = [0, *cuts, len(replies)]
    groups = [replies[a:b] for a, b in pairwise(edges) if a < b]
    return rule(read_part(reducer.merge(reducer.fold(group) for group in groups)), positions)


def messages(replies: list[RecordDict]) -> list[Message]:
    asked = [
        Message(RecordDict(), dst_node_id=node_id_of(k), message_type=TRAIN_PREDICTIONS.kind)
        for k in range(len(replies))
    ]
    return [Message(content, reply_to=ask) for content, ask in zip(replies, asked, strict=True)]


def together(rule: EnsembleRule, replies: list[RecordDict], probe: list[int]) -> Ensemble:
    all_answers = gather(messages(replies))
    assert isinstance(all_answers, Answers)
    return rule(all_answers, np.array(probe, dtype=np.int64))
