"""A distillation strategy on blobs, and fabricated replies to what it asks."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, Message
from torch import Tensor, nn

from clients.data import Splits, blobs, classification, split
from clients.messages.accumulator import part_message
from clients.messages.arrays import write_arrays
from clients.messages.replies import PredictionReply, write_reply
from clients.messages.requests import client_id_of, crc32_of, node_id_of, read_request
from clients.models import logistic_regression, mlp
from clients.models.factory import build, parameters_of
from clients.population.clients import SimulatedClients
from clients.training.loop import train
from clients.training.losses import kl
from strategies.aggregation.combiners import mean_of_probs
from strategies.aggregation.scorers import uniform
from strategies.server.distillation import DistillationStrategy
from tests.parts import whole

SEED = 5
DISTIL = partial(
    train, epochs=3, batch_size=16, optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9)
)
STUDENT = partial(mlp, hidden=(32,))


def cut_blobs() -> Splits:
    """180 private, 180 proxy and 120 test examples of four well separated classes."""
    numbers = {"proxy_share": 0.5, "proxy_source": None, "limit": None, "proxy_limit": None}
    train_set, test_set = blobs(num_examples=480, spread=0.3)
    return split(train_set, test_set, **numbers, rng=np.random.default_rng(0))


SPLITS = cut_blobs()
PROXY, TEST = SPLITS.proxy, SPLITS.test


def fresh_student() -> nn.Module:
    return build(STUDENT, classification((1, 4, 4), 4), np.random.default_rng(0))


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in parameters_of(model).items()}


def make(**changes: Any) -> DistillationStrategy:
    parts: dict[str, Any] = {
        "student": fresh_student(),
        "proxy": PROXY,
        "test": TEST,
        "distil": DISTIL,
        "seed": SEED,
        "scorer": uniform,
        "combiner": mean_of_probs,
        "loss": kl,
    }
    strategy: DistillationStrategy = whole(DistillationStrategy, parts | changes)
    return strategy


def asked(
    strategy: DistillationStrategy,
    num_clients: int = 3,
    server_round: int = 1,
    node_ids: list[int] | None = None,
) -> list[Message]:
    """Collect the requests of a round's training."""
    nodes = node_ids or [node_id_of(client) for client in range(num_clients)]
    grid: Any = SimpleNamespace(get_node_ids=lambda: nodes)
    arrays = write_arrays(parameters_of(strategy.student))
    return list(strategy.configure_train(server_round, arrays, ConfigRecord(), grid))


def reply_to(request: Message, logits: Tensor, mask: Tensor | None = None) -> Message:
    told = read_request(request.content)
    answer = PredictionReply(
        server_round=told.server_round,
        client_id=client_id_of(request.metadata.dst_node_id),
        inputs_crc32=crc32_of(told.proxy_ids),
        num_examples=30,
        logits=logits.numpy(),
        own_probs=None,
        mask=None if mask is None else mask.numpy(),
        metrics={},
        answers=told.answers,
    )
    return Message(write_reply(answer), reply_to=request)


def random_logits(strategy: DistillationStrategy, num_clients: int) -> Tensor:
    rng = torch.Generator().manual_seed(1)
    return 3 * torch.randn(num_clients, len(strategy.split.distilled_ids), 4, generator=rng)


def distil_round(
    strategy: DistillationStrategy,
    logits: Tensor,
    mask: Tensor | None = None,
    reverse: bool = False,
) -> dict[str, Any]:
    """Run one round in which client k answers logits[k]; return its metrics."""
    masks = [None] * len(logits) if mask is None else list(mask)
    requests = asked(strategy, len(logits))
    replies = [reply_to(*parts) for parts in zip(requests, logits, masks, strict=True)]
    _, metrics = strategy.aggregate_train(1, replies[::-1] if reverse else replies)
    assert metrics is not None
    return dict(metrics)


def reduced(strategy: DistillationStrategy, phase: str, replies: list[Message]) -> list[Message]:
    """Do as the engine does: fold two groups, merge, and pass one message on beside the errors."""
    reducer = strategy.intake(1, phase)
    assert reducer is not None
    contents = [reply.content for reply in replies if reply.has_content()]
    parts = [reducer.fold(iter(contents[:2])), reducer.fold(iter(contents[2:]))]
    first = next(reply for reply in replies if reply.has_content())
    merged = part_message(reducer.merge(parts), first)
    return [merged, *(reply for reply in replies if reply.has_error())]


def federation(splits: Splits = SPLITS, local_epochs: int = 20) -> SimulatedClients:
    """Client 0, an mlp like the student, has classes 0 and 1; client 1 has 2 and 3."""
    labels = splits.private.labels
    return SimulatedClients(
        splits=splits,
        partitions=[np.flatnonzero(labels < 2), np.flatnonzero(labels >= 2)],
        architectures=["mlp", "linear"],
        models={"mlp": STUDENT, "linear": logistic_regression},
        student=STUDENT,
        train=partial(DISTIL, epochs=local_epochs),
        seed=SEED,
    )
