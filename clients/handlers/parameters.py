"""Parameters out, parameters back: Flower's own convention, so that FedAvg and its kin work."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from torch import Tensor

from clients.data import Task
from clients.data.label_checks import Labels
from clients.execution.executor import Trained
from clients.execution.model_cache import as_tensors
from clients.handlers.base import SERVER_ROUND, Handler, Replies, each
from clients.handlers.compute_cost import forward, local_training
from clients.handlers.state import (
    client_of,
    own_network,
    pair_trained,
    round_of,
    round_told,
    tested,
)
from clients.messages.arrays import read_arrays, write_arrays
from clients.messages.requests import ARRAYS, CONFIG, METRICS
from clients.population.clients import STUDENT, SimulatedClients
from clients.training.evaluation import measured
from clients.training.objective import Anchors, Loss, Objective, no_anchors, proximal

PROXIMAL_MU = "proximal-mu"


def train_parameters(
    clients: SimulatedClients,
    requests: Sequence[Message],
    contexts: Sequence[Context],
    device: str,
    objective: Loss | Objective | None = None,
    anchors: Callable[[int], Anchors] = no_anchors,
) -> Replies:
    """Load the parameters received, train on private data, return the parameters.

    A key "proximal-mu", as Flower's FedProx sends it, is that of
    `clients.training.objective.proximal`. They minimise `objective`, for labels, or the config's;
    `anchors` gives, by client id, what it compares with.
    """
    content = requests[0].content
    server_round = round_of(requests[0])
    start = as_tensors(read_arrays(content.array_records[ARRAYS]), device)
    ids = [client_of(context) for context in contexts]
    around = partial(_with_proximal, config=content.config_records[CONFIG])
    what = objective, anchors, around
    trained = clients.train(ids, [start] * len(ids), server_round, device, *what)
    for request, client_id, result in zip(requests, ids, trained, strict=True):
        if isinstance(result, Exception):
            yield result
            continue
        metrics = training_metrics(clients, client_id, result)
        arrays = write_arrays(result.parameters)
        yield Message(RecordDict({ARRAYS: arrays, METRICS: metrics}), reply_to=request)


def training_metrics(clients: SimulatedClients, client_id: int, result: Trained) -> MetricRecord:
    """Say of a client's local training on how many examples it was, and its last mean loss."""
    loss = result.losses[-1] if result.losses else 0.0
    return MetricRecord({"num-examples": len(clients.partitions[client_id]), "train-loss": loss})


def train_messenger(
    clients: SimulatedClients, request: Message, context: Context, device: str
) -> RecordDict:
    """Let a client's own network and the messenger received teach each other; send the latter."""
    assert clients.messenger is not None, "else another handler answers"
    received = read_arrays(request.content.array_records[ARRAYS])
    server_round = round_of(request)
    about = clients, clients.messenger, context, received, server_round, device
    if isinstance(result := pair_trained(*about), Exception):
        raise result
    messenger, metrics = result
    return RecordDict({ARRAYS: write_arrays(messenger), METRICS: MetricRecord({**metrics})})


def evaluate_parameters(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Replies:
    """Measure the parameters received on each client's private data."""
    received = as_tensors(read_arrays(requests[0].content.array_records[ARRAYS]), device)
    private, at = clients.splits.private, round_told(requests[0].content)
    for request, context in zip(requests, contexts, strict=True):
        client_id = client_of(context)
        indices = clients.partitions[client_id]
        try:
            own = clients.architectures[client_id]
            name = own if clients.messenger is None else STUDENT
            networks, test = clients.place(device).networks, tested(clients, request.content)
            sees = partial(clients.seen, client_id=client_id, phase="test", server_round=at)
            logits = networks.predict(name, received, sees(private), indices)
            named = _on_private(private.task, logits, private.labels[indices])
            if clients.messenger is not None:  # it has a network of its own
                if isinstance(private_network := own_network(clients, context, device), Exception):
                    raise private_network
                answers = networks.predict(own, private_network, sees(test), np.arange(len(test)))
                named |= measured(answers, test)
        except Exception as error:  # the client's, not the group's
            yield error
            continue
        metrics = MetricRecord({"num-examples": len(indices), **named})
        yield Message(RecordDict({METRICS: metrics}), reply_to=request)


def _on_private(task: Task, rows: Tensor, labels: Labels) -> dict[str, float]:
    """Measure answers to private data: by names that all clients have, or no mean could be taken.

    What a client's few labels say nothing of is 0.
    """
    values = task.measures(rows, labels)
    names = ["accuracy", "loss"] if task.soft else ["loss"]
    names += [] if task.measure in names else [task.measure]
    return {f"private-{name}": values.get(name, 0.0) for name in names}


def _with_proximal(objective: Loss | Objective, config: ConfigRecord) -> Loss | Objective:
    """Add the proximal term that a request asks for, if it does."""
    mu = config.get(PROXIMAL_MU, 0.0)
    if isinstance(mu, bool) or not isinstance(mu, int | float):
        raise ValueError(f"'{PROXIMAL_MU}' is {mu!r}: expected a number >= 0")
    return proximal(float(mu), objective) if PROXIMAL_MU in config else objective


def _measuring(clients: SimulatedClients, client_id: int, content: RecordDict) -> float:
    """Answer the private set with what was sent; with a messenger the test set with its own."""
    examples = len(clients.partitions[client_id])
    if clients.messenger is None:
        return examples * forward(clients, client_id)
    own = len(tested(clients, content)) * forward(clients, client_id)
    return own + examples * clients.forward[STUDENT]


TRAIN = Handler(
    "train",
    train_parameters,
    keys=(SERVER_ROUND, PROXIMAL_MU),
    records=(ARRAYS,),
    multiplications=local_training,
)
EVALUATE = Handler("evaluate", evaluate_parameters, records=(ARRAYS,), multiplications=_measuring)
PARAMETERS = (TRAIN, EVALUATE)
MESSENGERS = (replace(TRAIN, answer=each(train_messenger), keys=(SERVER_ROUND,)), EVALUATE)
"""Where two networks learn from each other, neither has a proximal term."""
