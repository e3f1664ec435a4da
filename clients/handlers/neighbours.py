"""Parameters from client to client: each sends its own, and goes on from what came of others'.

No neighbour is seen here: whoever delivers has mixed what they sent into the record "mixed". A
client's own parameters are those of its network, or of its messenger if it has one.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict

from clients.execution.model_cache import as_tensors
from clients.handlers.state import MESSENGER, MODEL, PUSH, client_of, own_network, pair_trained
from clients.messages.arrays import is_float, read_arrays, write_arrays
from clients.messages.requests import ARRAYS, CONFIG, METRICS
from clients.models.factory import Parameters
from clients.mutual.from_neighbours import Transfer
from clients.mutual.messenger import Pair, learn_together
from clients.population.clients import STUDENT, SimulatedClients
from clients.training.evaluation import measures

MIXED, START = "mixed", "start"
"""Records: what neighbours' parameters came to; what to begin with."""

PUSH_WEIGHT = "push-weight"

Answers = Iterator[Message | Exception]


def send_own(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Answers:
    """Send one's own parameters as they are."""

    def answer(request: Message, context: Context) -> Message:
        return _reply(request, {ARRAYS: write_arrays(_own_parameters(clients, context, request))})

    yield from _each(requests, contexts, answer)


def train_own(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Answers:
    """Train on private data and send one's own parameters.

    Where weights are pushed (config "push"), what is sent is the numerator x = a z + (z' - z) and
    its weight a, z being the parameters before training and z' after.

    Reference: Assran et al., "Stochastic Gradient Push", ICML 2019 (arXiv:1811.10792), algorithm 1.
    """
    before = [
        _attempt(partial(_own_parameters, clients), c, r) for r, c in _pairs(requests, contexts)
    ]
    trained = _trained(clients, requests, contexts, before, device)
    for request, context, start, result in zip(requests, contexts, before, trained, strict=True):
        if isinstance(result, Exception) or isinstance(start, Exception):
            yield result if isinstance(result, Exception) else cast(Exception, start)
            continue
        parameters, metrics = result
        _keep(clients, context, parameters)
        content = {ARRAYS: write_arrays(parameters), METRICS: MetricRecord({**metrics})}
        if request.content.config_records[CONFIG].get("push"):
            weight = _push_weight(context)
            base, rest = _scaled(start, weight), _scaled(parameters, weight)
            numerators = _moved(base, start, parameters, rest, _learned(clients, context, device))
            content[ARRAYS] = write_arrays(numerators)
            content[METRICS] = MetricRecord({**metrics, PUSH_WEIGHT: weight})
        yield _reply(request, content)


def take_mixed(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Answers:
    """Go on with the mixture of neighbours' parameters; where weights are pushed, their ratio."""

    def answer(request: Message, context: Context) -> Message:
        mixed = read_arrays(request.content.array_records[MIXED])
        if (pushed := request.content.metric_records.get(PUSH)) is not None:
            weight = float(cast(float, pushed[PUSH_WEIGHT]))
            context.state[PUSH] = MetricRecord({PUSH_WEIGHT: weight})
            mixed = _scaled(mixed, 1.0 / weight)
        _keep(clients, context, mixed)
        return _reply(request, {})

    yield from _each(requests, contexts, answer)


def train_mixed(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Answers:
    """Add to the mixture of neighbours' parameters what training changes in one's own.

    Reference: D-PSGD, Lian et al., NeurIPS 2017 (arXiv:1705.09056): x_i <- sum_j W_ij x_j
    - gamma grad_i(x_i), here with as many local steps as an epoch has.
    """
    before = [
        _attempt(partial(_own_parameters, clients), c, r) for r, c in _pairs(requests, contexts)
    ]
    trained = _trained(clients, requests, contexts, before, device)
    for request, context, start, result in zip(requests, contexts, before, trained, strict=True):
        if isinstance(result, Exception) or isinstance(start, Exception):
            yield result if isinstance(result, Exception) else cast(Exception, start)
            continue
        mixed = read_arrays(request.content.array_records[MIXED])
        parameters, metrics = result
        learned = _learned(clients, context, device)
        _keep(clients, context, _moved(mixed, start, parameters, parameters, learned))
        yield _reply(request, {METRICS: MetricRecord({**metrics})})


def learn_with_received(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Answers:
    """Let one's own network and one that was sent teach each other on private data.

    Reference: Def-KT, Li, Li, Varshney, IEEE IoT Journal 9 (2022) (arXiv:2012.13063); which of the
    two is kept we know from memory only.
    """
    transfer = clients.peer_lesson
    assert isinstance(transfer, Transfer), "the strategy says how"

    def answer(request: Message, context: Context) -> Message:
        client_id = client_of(context)
        own = _own_parameters(clients, context, request)
        received = read_arrays(request.content.array_records[MIXED])
        model = clients.models[clients.architectures[client_id]]
        pair, loss = learn_together(
            transfer.how,
            (model, model),
            Pair(own, received, None),
            clients.splits.private,
            clients.partitions[client_id],
            clients.seed,
            (_round_of(request), client_id),
            device,
        )
        kept = {"own": pair.private, "received": pair.messenger}.get(transfer.keep)
        if kept is None:
            kept = _mean(pair.private, pair.messenger)
        _keep(clients, context, kept)
        return _reply(request, {METRICS: MetricRecord({"train-loss": loss})})

    yield from _each(requests, contexts, answer)


def evaluate_own(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Answers:
    """Measure one's network on the test set, and the messenger if there is one."""
    test, networks = clients.splits.test, clients.place(device).networks

    def measured(name: str, parameters: Any) -> dict[str, float]:
        logits = networks.predict(name, parameters, test, np.arange(len(test)))
        return measures(logits, test.labels)

    def answer(request: Message, context: Context) -> Message:
        architecture, values = clients.architectures[client_of(context)], dict[str, float]()
        own = START in request.content or clients.messenger is not None
        network: Any = own_network(clients, context, device)
        if own:
            shared = as_tensors(_own_parameters(clients, context, request), device)
            if clients.messenger is None:
                network = shared
            else:
                found = measured(STUDENT, shared)
                values = {f"messenger-{name}": value for name, value in found.items()}
        if isinstance(network, Exception):
            raise network
        metrics = MetricRecord({**measured(architecture, network), **values})
        return _reply(request, {METRICS: metrics})

    yield from _each(requests, contexts, answer)


# --- steps ---


def _each(
    requests: Sequence[Message],
    contexts: Sequence[Context],
    answer: Callable[[Message, Context], Message],
) -> Answers:
    for request, context in _pairs(requests, contexts):
        try:
            yield answer(request, context)
        except Exception as error:  # the client's, not the group's
            yield error


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


def _own_parameters(clients: SimulatedClients, context: Context, request: Message) -> Parameters:
    """Return what a client's state holds; before it holds any, what it is sent to begin with."""
    name = MODEL if clients.messenger is None else MESSENGER
    record = context.state.array_records.get(name)
    if record is None and (record := request.content.array_records.get(START)) is None:
        raise ValueError(f"it has no parameters yet, and was sent none as '{START}'")
    return read_arrays(record)


def _keep(clients: SimulatedClients, context: Context, parameters: Parameters) -> None:
    name = MODEL if clients.messenger is None else MESSENGER
    context.state[name] = write_arrays(parameters)


def _trained(
    clients: SimulatedClients,
    requests: Sequence[Message],
    contexts: Sequence[Context],
    starts: Sequence[Parameters | Exception],
    device: str,
) -> Iterator[tuple[Parameters, dict[str, float]] | Exception]:
    """Train each client's own parameters, with its private network if they are a messenger's."""
    server_round = _round_of(requests[0])
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


def _mean(one: Parameters, other: Parameters) -> Parameters:
    return {
        name: ((value + other[name]) / 2).astype(value.dtype) if is_float(value.dtype) else value
        for name, value in one.items()
    }


def _round_of(request: Message) -> int:
    return cast(int, request.content.config_records[CONFIG]["server-round"])


def _reply(request: Message, records: dict[str, Any]) -> Message:
    return Message(RecordDict(records), reply_to=request)
