"""Mutual transfer: a client's own network and one that it was sent teach each other (Def-KT)."""

from functools import partial
from typing import Literal

from flwr.app import Context, Message, MetricRecord, RecordDict

from clients.handlers.base import Handler, each
from clients.handlers.compute_cost import forward
from clients.handlers.peer_parameters import MIXED
from clients.handlers.state import START, client_of, keep_parameters, own_parameters, round_of
from clients.messages.arrays import is_float, read_arrays
from clients.messages.requests import METRICS
from clients.models.factory import Parameters
from clients.mutual.messenger import Messenger, Pair, learn_together
from clients.population.clients import SimulatedClients
from clients.training.loop import PASSES


def train_received(how: Messenger, keep: Literal["received", "own", "mean"]) -> Handler:
    """Make the handler of those that learn with a network they are sent.

    Args:
        how: Both learn; the client's own is the first.
        keep: Which one the client goes on with: what it was sent, its own, or the mean of both.

    Returns:
        The handler.
    """
    return Handler(
        "train.received",
        each(partial(learn_with_received, how=how, keep=keep)),
        records=(START, MIXED),
        replies={METRICS: MetricRecord},
        multiplications=partial(_learning_together, how.epochs),
    )


def learn_with_received(
    clients: SimulatedClients,
    request: Message,
    context: Context,
    device: str,
    *,
    how: Messenger,
    keep: Literal["received", "own", "mean"],
) -> RecordDict:
    """Let one's own network and one that was sent teach each other on private data.

    Reference: Def-KT, Li, Li, Varshney, IEEE IoT Journal 9 (2022) (arXiv:2012.13063); which of the
    two is kept we know from memory only.
    """
    client_id = client_of(context)
    own = own_parameters(clients, context, request)
    received = read_arrays(request.content.array_records[MIXED])
    model = clients.models[clients.architectures[client_id]]
    pair, loss = learn_together(
        how,
        (model, model),
        Pair(own, received, None),
        clients.seen(clients.splits.private, client_id, "train", round_of(request)),
        clients.partitions[client_id],
        clients.labels(client_id, round_of(request)),
        clients.seed,
        (round_of(request), client_id),
        device,
    )
    kept = {"own": pair.private, "received": pair.messenger}.get(keep)
    if kept is None:
        kept = _mean(pair.private, pair.messenger)
    keep_parameters(clients, context, kept)
    return RecordDict({METRICS: MetricRecord({"train-loss": loss})})


# --- steps ---


def _learning_together(
    epochs: int, clients: SimulatedClients, client_id: int, content: RecordDict
) -> float:
    """Train two networks of the client's architecture: its own, and what it was sent."""
    return PASSES * epochs * len(clients.partitions[client_id]) * 2 * forward(clients, client_id)


def _mean(one: Parameters, other: Parameters) -> Parameters:
    return {
        name: ((value + other[name]) / 2).astype(value.dtype) if is_float(value.dtype) else value
        for name, value in one.items()
    }
