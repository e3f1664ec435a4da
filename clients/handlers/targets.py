"""Soft labels from client to client: each learns from what its neighbours' answers came to.

No neighbour is seen here: whoever delivers has mixed their answers into the record "targets".
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from flwr.app import Context, Message, MetricRecord, RecordDict

from clients.execution.executor import Lesson
from clients.handlers.state import MODEL, client_of, own_network
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import CONFIG, METRICS
from clients.mutual.from_neighbours import Digest
from clients.population.clients import SimulatedClients
from clients.seeding import Purpose, stream

TARGETS, SUMS = "targets", "sums"
"""Records: soft labels and the proxy ids they are of; sums of answers on their way."""


def learn_targets(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Iterator[Message | Exception]:
    """Imitate each client's own soft labels, of the proxy examples that they are of."""
    digest = clients.peer_lesson
    assert isinstance(digest, Digest), "the strategy says how"
    server_round = cast(int, requests[0].content.config_records[CONFIG]["server-round"])
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
        digest.loss,
        device,
        **digest.numbers,
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


def relay(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Iterator[Message | Exception]:
    """Pass on the sums that neighbours' answers were mixed into."""
    for request in requests:
        yield Message(RecordDict({SUMS: request.content[SUMS]}), reply_to=request)
