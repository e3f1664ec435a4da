"""Soft labels from client to client: each learns from what its neighbours' answers came to.

No neighbour is seen here: whoever delivers has mixed their answers into the record "targets".
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict

from clients.execution.executor import Lesson
from clients.handlers.base import Handler, Replies, each
from clients.handlers.compute_cost import forward
from clients.handlers.state import MODEL, client_of, own_network, round_of
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import METRICS, TARGETS
from clients.population.clients import SimulatedClients
from clients.seeding import Purpose, stream
from clients.training.batches import examples_learned
from clients.training.loop import PASSES, Trainer, train
from clients.training.objective import Loss, Objective
from clients.training.schedules import of_round

SUMS = "sums"
"""Record of sums of answers on their way; soft labels and the proxy ids they are of are TARGETS."""


def learn_targets(
    clients: SimulatedClients,
    requests: Sequence[Message],
    contexts: Sequence[Context],
    device: str,
    *,
    objective: Loss | Objective,
    numbers: Mapping[str, Any],
) -> Replies:
    """Imitate each client's own soft labels, of the proxy examples that they are of."""
    server_round = round_of(requests[0])
    numbers = {**numbers, **of_round(partial(train, **numbers), server_round)}
    ids = [client_of(context) for context in contexts]
    labels = {
        client_id: read_arrays(request.content.array_records[TARGETS])
        for client_id, request in zip(ids, requests, strict=True)
    }

    def lesson(client_id: int, start: Any) -> Lesson:
        draws = stream(clients.seed, Purpose.DIGEST, server_round, client_id)
        own = labels[client_id]
        targets = torch.from_numpy(own["targets"].copy())
        return Lesson(start, own["proxy-ids"].copy(), targets, draws)

    starts = [own_network(clients, context, device) for context in contexts]
    taught = [k for k, client_id in enumerate(ids) if len(labels[client_id]["proxy-ids"])]
    fitted = clients.fit(
        [ids[k] for k in taught],
        [starts[k] for k in taught],
        lesson,
        clients.splits.proxy,
        objective,
        device,
        **numbers,
    )
    for k, (request, context) in enumerate(zip(requests, contexts, strict=True)):
        metrics: dict[str, float] = {"digested-examples": len(labels[ids[k]]["proxy-ids"])}
        if k in taught:
            result = next(fitted)
            if isinstance(result, Exception):
                yield result
                continue
            context.state[MODEL] = write_arrays(result.parameters)
            if result.losses:
                metrics["digest-loss"] = result.losses[-1]
        yield Message(RecordDict({METRICS: MetricRecord({**metrics})}), reply_to=request)


def relay(clients: SimulatedClients, request: Message, context: Context, device: str) -> RecordDict:
    """Pass on the sums that neighbours' answers were mixed into."""
    return RecordDict({SUMS: request.content[SUMS]})


def _unlike(request: Message, reply: Message) -> str | None:
    if reply.content.get(SUMS) != request.content[SUMS]:
        return f"'{SUMS}' are not those that it was to pass on"
    return None


RELAY = Handler(
    "query.relay",
    each(relay),
    records=(SUMS,),
    replies={SUMS: ArrayRecord},
    limits={SUMS: float(torch.finfo(torch.float32).max)},
    fault=_unlike,
)


def train_targets(objective: Loss | Objective, numbers: Mapping[str, Any]) -> Handler:
    """Make the handler of those that learn soft labels.

    Args:
        objective: What is minimised, for soft labels [B, C].
        numbers: Keyword arguments of `clients.training.loop.train`.

    Returns:
        The handler.
    """
    return Handler(
        "train.targets",
        partial(learn_targets, objective=objective, numbers=numbers),
        records=(TARGETS,),
        replies={METRICS: MetricRecord},
        multiplications=partial(_imitating, partial(train, **numbers)),
    )


def _imitating(
    how: Trainer, clients: SimulatedClients, client_id: int, content: RecordDict
) -> float:
    ids = read_arrays(cast(ArrayRecord, content[TARGETS]))["proxy-ids"]
    learned = examples_learned(how, len(ids)) if len(ids) else 0
    return PASSES * (learned or 0) * forward(clients, client_id)
