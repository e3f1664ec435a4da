"""Parameters from client to client: each sends its own, and goes on from what came of others'.

No neighbour is seen here: whoever delivers has mixed what they sent into the record "mixed". A
client's own parameters are those of its network, or of its messenger if it has one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict

from clients.execution.model_cache import as_tensors
from clients.handlers.base import SERVER_ROUND, Handler, Replies, each
from clients.handlers.compute_cost import forward, local_training
from clients.handlers.state import (
    PUSH,
    START,
    client_of,
    keep_parameters,
    own_network,
    own_parameters,
    pair_trained,
    round_of,
    round_told,
    tested,
)
from clients.messages.arrays import is_float, read_arrays, write_arrays
from clients.messages.requests import ARRAYS, CONFIG, METRICS
from clients.models.factory import Parameters
from clients.population.clients import STUDENT, SimulatedClients
from clients.training.evaluation import measured

MIXED = "mixed"
"""Record: what neighbours' parameters came to."""

PUSH_WEIGHT = "push-weight"


def send_own(
    clients: SimulatedClients, request: Message, context: Context, device: str
) -> RecordDict:
    """Send one's own parameters as they are."""
    return RecordDict({ARRAYS: write_arrays(own_parameters(clients, context, request))})


def train_own(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Replies:
    """Train on private data and send one's own parameters.

    Where weights are pushed (config "push"), what is sent is the numerator x = a z + (z' - z) and
    its weight a, z being the parameters before training and z' after.

    Reference: Assran et al., "Stochastic Gradient Push", ICML 2019 (arXiv:1811.10792), algorithm 1.
    """
    before = [
        _attempt(partial(own_parameters, clients), c, r) for r, c in _pairs(requests, contexts)
    ]
    trained = _trained(clients, requests, contexts, before, device)
    for request, context, start, result in zip(requests, contexts, before, trained, strict=True):
        if isinstance(result, Exception) or isinstance(start, Exception):
            yield result if isinstance(result, Exception) else cast(Exception, start)
            continue
        parameters, metrics = result
        keep_parameters(clients, context, parameters)
        sent, about = parameters, metrics
        if request.content.config_records[CONFIG].get("push"):
            weight = _push_weight(context)
            base, rest = _scaled(start, weight), _scaled(parameters, weight)
            numerators = _moved(base, start, parameters, rest, _learned(clients, context, device))
            sent, about = numerators, {**metrics, PUSH_WEIGHT: weight}
        content = RecordDict({ARRAYS: write_arrays(sent), METRICS: MetricRecord({**about})})
        yield Message(content, reply_to=request)


def take_mixed(
    clients: SimulatedClients, request: Message, context: Context, device: str
) -> RecordDict:
    """Go on with the mixture of neighbours' parameters; where weights are pushed, their ratio."""
    mixed = read_arrays(request.content.array_records[MIXED])
    if (pushed := request.content.metric_records.get(PUSH)) is not None:
        weight = float(cast(float, pushed[PUSH_WEIGHT]))
        context.state[PUSH] = MetricRecord({PUSH_WEIGHT: weight})
        mixed = _scaled(mixed, 1.0 / weight)
    keep_parameters(clients, context, mixed)
    return RecordDict({})


def train_mixed(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Replies:
    """Add to the mixture of neighbours' parameters what training changes in one's own.

    Reference: D-PSGD, Lian et al., NeurIPS 2017 (arXiv:1705.09056): x_i <- sum_j W_ij x_j
    - gamma grad_i(x_i), here with as many local steps as an epoch has.
    """
    before = [
        _attempt(partial(own_parameters, clients), c, r) for r, c in _pairs(requests, contexts)
    ]
    trained = _trained(clients, requests, contexts, before, device)
    for request, context, start, result in zip(requests, contexts, before, trained, strict=True):
        if isinstance(result, Exception) or isinstance(start, Exception):
            yield result if isinstance(result, Exception) else cast(Exception, start)
            continue
        mixed = read_arrays(request.content.array_records[MIXED])
        parameters, metrics = result
        learned = _learned(clients, context, device)
        keep_parameters(clients, context, _moved(mixed, start, parameters, parameters, learned))
        yield Message(RecordDict({METRICS: MetricRecord({**metrics})}), reply_to=request)


def evaluate_own(
    clients: SimulatedClients, request: Message, context: Context, device: str
) -> RecordDict:
    """Measure one's network on the test set, and the messenger if there is one."""
    test, networks = tested(clients, request.content), clients.place(device).networks
    test = clients.seen(test, client_of(context), "test", round_told(request.content))

    def measures_of(name: str, parameters: Any) -> dict[str, float]:
        logits = networks.predict(name, parameters, test, np.arange(len(test)))
        return measured(logits, test)

    architecture, values = clients.network_of(client_of(context)), dict[str, float]()
    network: Any = own_network(clients, context, device)
    if START in request.content or clients.messenger is not None:
        shared = as_tensors(own_parameters(clients, context, request), device)
        if clients.messenger is None:
            network = shared
        else:
            found = measures_of(STUDENT, shared)
            values = {f"messenger-{name}": value for name, value in found.items()}
    if isinstance(network, Exception):
        raise network
    return RecordDict({METRICS: MetricRecord({**measures_of(architecture, network), **values})})


# --- steps ---


def _pairs(
    requests: Sequence[Message], contexts: Sequence[Context]
) -> Iterator[tuple[Message, Context]]:
    return zip(requests, contexts, strict=True)


def _attempt(
    function: Callable[[Context, Message], Parameters], context: Context, request: Message
) -> Parameters | Exception:
    try:
        return function(context, request)
    except Exception as error:
        return error


def _trained(
    clients: SimulatedClients,
    requests: Sequence[Message],
    contexts: Sequence[Context],
    starts: Sequence[Parameters | Exception],
    device: str,
) -> Iterator[tuple[Parameters, dict[str, float]] | Exception]:
    """Train each client's own parameters, with its private network if they are a messenger's."""
    server_round = round_of(requests[0])
    if clients.messenger is not None:
        for context, start in zip(contexts, starts, strict=True):
            yield pair_trained(clients, clients.messenger, context, start, server_round, device)
        return
    ids = [client_of(context) for context in contexts]
    tensors = [s if isinstance(s, Exception) else as_tensors(s, device) for s in starts]
    results = clients.train(ids, tensors, server_round, device)
    for client_id, result in zip(ids, results, strict=True):
        if isinstance(result, Exception):
            yield result
            continue
        metrics = {"num-examples": float(len(clients.partitions[client_id]))}
        if result.losses:
            metrics["train-loss"] = result.losses[-1]
        yield result.parameters, metrics


def _push_weight(context: Context) -> float:
    record = context.state.metric_records.get(PUSH)
    return 1.0 if record is None else float(cast(float, record[PUSH_WEIGHT]))


def _scaled(parameters: Parameters, factor: float) -> Parameters:
    """Multiply numbers; counts, such as batch norms', stay as they are."""
    return {
        name: (value * factor).astype(value.dtype) if is_float(value.dtype) else value
        for name, value in parameters.items()
    }


def _moved(
    base: Parameters, start: Parameters, end: Parameters, rest: Parameters, learned: set[str]
) -> Parameters:
    """Add `end - start` to `base` where parameters are learned; buffers are those of `rest`.

    Differences of running variances could bring them below zero.
    """
    return {
        name: (value + (end[name] - start[name])).astype(value.dtype)
        if name in learned
        else rest[name]
        for name, value in base.items()
    }


def _learned(clients: SimulatedClients, context: Context, device: str) -> set[str]:
    """Name the parameters, not the buffers, of a client's own network or messenger."""
    name = STUDENT
    if clients.messenger is None:
        name = clients.architectures[client_of(context)]
    return {key for key, _ in clients.place(device).networks.of(name).named_parameters()}


def _measuring(clients: SimulatedClients, client_id: int, content: RecordDict) -> float:
    """Answer the test set, with the messenger too if there is one."""
    messenger = 0.0 if clients.messenger is None else clients.forward[STUDENT]
    return len(tested(clients, content)) * (forward(clients, client_id) + messenger)


# --- handlers ---

KEYS = (SERVER_ROUND, "push")
"""All messages of a protocol say whether weights are pushed; who trains and sends goes by it."""

SEND_OWN = Handler(
    "query.own",
    each(send_own),
    keys=KEYS,
    records=(START,),
    replies={ARRAYS: ArrayRecord, METRICS: MetricRecord},
)
SHOW_OWN = replace(SEND_OWN, kind="evaluate.parameters")
"""The same for whoever watches, in no time."""

TRAIN_OWN = replace(SEND_OWN, kind="train.own", answer=train_own, multiplications=local_training)
TAKE_MIXED = Handler(
    "train.take",
    each(take_mixed),
    keys=KEYS,
    records=(START, MIXED, PUSH),
    replies={METRICS: MetricRecord},
)
TRAIN_MIXED = replace(
    TAKE_MIXED,
    kind="train.mixed",
    answer=train_mixed,
    records=(START, MIXED),
    multiplications=local_training,
)
EVALUATE_OWN = Handler(
    "evaluate.own",
    each(evaluate_own),
    keys=KEYS,
    records=(START,),
    replies={METRICS: MetricRecord},
    multiplications=_measuring,
)
