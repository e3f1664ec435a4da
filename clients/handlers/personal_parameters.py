"""Parameters of which a part stays with the client: it trains the whole, and sends what it got.

What a request leaves out is the client's own. So a client's network is what it was sent last and
what its state holds.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict

from clients.execution.model_cache import Tensors, as_tensors
from clients.handlers.base import SERVER_ROUND, Handler, Replies, each
from clients.handlers.compute_cost import forward, local_training
from clients.handlers.parameters import EVALUATE, TRAIN, training_metrics
from clients.handlers.state import MODEL, client_of, personal_network, round_of, round_told, tested
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import ARRAYS, METRICS
from clients.population.clients import SimulatedClients
from clients.training.evaluation import measured
from clients.training.objective import Loss, Objective, as_objective


def train_shared(
    clients: SimulatedClients,
    requests: Sequence[Message],
    contexts: Sequence[Context],
    device: str,
    *,
    own_epochs: int | None,
    keep_trained: bool,
) -> Replies:
    """Train the parameters received together with one's own; keep these, return the others.

    With `own_epochs` first one's own for so many, the others held, then the others, one's own held;
    statistics of normalisation layers are never held. With `keep_trained` the others are kept too,
    to be measured: training goes on from what is received.
    """
    received = as_tensors(read_arrays(requests[0].content.array_records[ARRAYS]), device)
    server_round, ids = round_of(requests[0]), [client_of(context) for context in contexts]
    shared = None
    starts: list[Tensors | Exception] = [
        each if isinstance(each, Exception) else {**each, **received}
        for each in starts_of(clients, contexts, received, device)
    ]
    if own_epochs is not None:
        network = clients.place(device).networks.of(clients.architectures[ids[0]])
        learned = [name for name, _ in network.named_parameters()]
        first, shared = (
            partial(_only, names=tuple(n for n in learned if (n in received) == sent))
            for sent in (False, True)
        )
        about = ids, starts, server_round, device
        before = clients.train(*about, around=first, epochs=own_epochs, steps=None)
        starts = [
            result if isinstance(result, Exception) else as_tensors(result.parameters, device)
            for result in before
        ]
    trained = clients.train(ids, starts, server_round, device, around=shared)
    for request, context, result in zip(requests, contexts, trained, strict=True):
        if isinstance(result, Exception):
            yield result
            continue
        whole = result.parameters
        if own := {n: a for n, a in whole.items() if keep_trained or n not in received}:
            context.state[MODEL] = write_arrays(own)
        arrays = write_arrays({name: whole[name] for name in received})
        metrics = training_metrics(clients, client_of(context), result)
        yield Message(RecordDict({ARRAYS: arrays, METRICS: metrics}), reply_to=request)


def _only(objective: Loss | Objective, names: tuple[str, ...]) -> Objective:
    return replace(as_objective(objective), only=names)


def evaluate_personal(
    clients: SimulatedClients, request: Message, context: Context, device: str
) -> RecordDict:
    """Measure a client's network, what was sent and what its state holds, on the test set."""
    content, client_id = request.content, client_of(context)
    received = as_tensors(read_arrays(content.array_records[ARRAYS]), device)
    network = personal_network(clients, context, received, device)
    test, networks = tested(clients, content), clients.place(device).networks
    test = clients.seen(test, client_id, "test", round_told(content))
    name, everything = clients.architectures[client_id], np.arange(len(test))
    values = measured(networks.predict(name, network, test, everything), test)
    examples = len(clients.partitions[client_id])
    return RecordDict({METRICS: MetricRecord({"num-examples": examples, **values})})


def starts_of(
    clients: SimulatedClients, contexts: Sequence[Context], received: Tensors, device: str
) -> list[Tensors | Exception]:
    """Complete what clients received by what each has; or say what kept one from it."""
    return [_attempt(clients, context, received, device) for context in contexts]


# --- steps ---


def _attempt(
    clients: SimulatedClients, context: Context, received: Tensors, device: str
) -> Tensors | Exception:
    try:
        return personal_network(clients, context, received, device)
    except Exception as error:  # the client's, not the group's
        return error


def _training(
    clients: SimulatedClients, client_id: int, content: RecordDict, *, own_epochs: int | None
) -> float:
    """Count local training; while one's own is trained a forward pass, what is behind it little."""
    first = (own_epochs or 0) * len(clients.partitions[client_id]) * forward(clients, client_id)
    return local_training(clients, client_id, content) + first


def _measuring(clients: SimulatedClients, client_id: int, content: RecordDict) -> float:
    return len(tested(clients, content)) * forward(clients, client_id)


# --- handlers ---

EVALUATE_PERSONAL = replace(EVALUATE, answer=each(evaluate_personal), multiplications=_measuring)


def sharing(own_epochs: int | None, keep_trained: bool) -> tuple[Handler, Handler]:
    """Make the handlers of clients that share a part of their parameters, as in `train_shared`."""
    train = replace(
        TRAIN,
        answer=partial(train_shared, own_epochs=own_epochs, keep_trained=keep_trained),
        keys=(SERVER_ROUND,),
        multiplications=partial(_training, own_epochs=own_epochs),
    )
    return train, EVALUATE_PERSONAL
