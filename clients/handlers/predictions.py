"""Predictions: each client keeps a network of its own and says what it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from clients.execution.executor import Answered, Lesson
from clients.execution.model_cache import Tensors, arrays_of, as_tensors
from clients.handlers.answering import (
    answer,
    fit_for,
    ids_of,
    imitated_ids,
    read_discriminator,
    write_discriminator,
)
from clients.handlers.base import SERVER_ROUND, Handler, Replies
from clients.handlers.cost import PASSES, forward, local_training
from clients.handlers.state import DISCRIMINATOR, MODEL, client_of, own_network
from clients.messages.answer_faults import MAX_LOGIT, fault_in_answers
from clients.messages.arrays import write_arrays
from clients.messages.requests import (
    ARRAYS,
    CONFIG,
    INPUTS,
    METRICS,
    PREDICTIONS,
    PredictionRequest,
    client_id_of,
    read_request,
    write_reply,
)
from clients.messages.requests import (
    STUDENT as FED_BACK,
)
from clients.models.factory import unlike
from clients.population.clients import STUDENT, SimulatedClients
from clients.seeding import Purpose, stream
from clients.training.evaluation import measures
from clients.training.losses import kl


def train_predictions(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Replies:
    """Take in the student if it was fed back, train, answer the proxy examples."""
    asked = read_request(requests[0].content)
    ids = [client_of(context) for context in contexts]
    starts = [own_network(clients, context, device) for context in contexts]
    if asked.student is not None:
        starts = _digested(clients, ids, starts, asked, device)
    networks: list[Tensors | Exception] = []
    losses = {}
    trained = clients.train(ids, starts, asked.server_round, device)
    for context, client_id, result in zip(contexts, ids, trained, strict=True):
        if isinstance(result, Exception):
            networks.append(result)
            continue
        context.state[MODEL] = write_arrays(result.parameters)
        networks.append(as_tensors(result.parameters, device))
        losses[client_id] = {"train-loss": result.losses[-1]} if result.losses else {}
    yield from _answer(clients, requests, contexts, networks, asked, losses, device)


def evaluate_predictions(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Replies:
    """Answer the test set, or proxy examples, with the networks as they are."""
    asked = read_request(requests[0].content)
    networks = [own_network(clients, context, device) for context in contexts]
    yield from _answer(clients, requests, contexts, networks, asked, {}, device)


def _digested(
    clients: SimulatedClients,
    ids: Sequence[int],
    starts: Sequence[Tensors | Exception],
    asked: PredictionRequest,
    device: str,
) -> list[Tensors | Exception]:
    """Become the student where the architectures agree, else imitate it on the proxy examples."""
    assert asked.student is not None, "nothing was fed back"
    student, proxy_ids = as_tensors(asked.student, device), imitated_ids(asked)
    networks, proxy = clients.place(device).networks, clients.splits.proxy
    if not unlike(networks.of(clients.architectures[ids[0]]), student):
        return [student] * len(starts)
    logits = networks.predict(STUDENT, student, proxy, proxy_ids)
    targets = (logits / asked.temperature).softmax(-1)

    def lesson(client_id: int, start: Tensors) -> Lesson:
        draws = stream(clients.seed, Purpose.DIGEST, asked.server_round, client_id)
        return Lesson(start, proxy_ids, targets, draws)

    loss = partial(kl, temperature=asked.temperature)
    fitted = clients.fit(ids, starts, lesson, proxy, loss, device, epochs=asked.digest_epochs)
    return [
        each if isinstance(each, Exception) else as_tensors(each.parameters, device)
        for each in fitted
    ]


def _answer(
    clients: SimulatedClients,
    requests: Sequence[Message],
    contexts: Sequence[Context],
    networks: Sequence[Tensors | Exception],
    asked: PredictionRequest,
    metrics: Mapping[int, dict[str, float]],
    device: str,
) -> Replies:
    """Answer the inputs of a request, all clients the same ones."""
    dataset = clients.splits.test if asked.proxy_ids is None else clients.splits.proxy
    answered = clients.place(device).answers(
        clients.architectures[client_of(contexts[0])],
        [network for network in networks if not isinstance(network, Exception)],
        dataset,
        ids_of(asked, dataset),
        features=asked.recipe is not None and asked.recipe.inputs == "features",
    )
    for request, context, network in zip(requests, contexts, networks, strict=True):
        if isinstance(network, Exception):
            yield network
        elif isinstance(item := next(answered), Exception):
            yield item
        else:
            known = metrics.get(client_of(context), {})
            yield _reply(clients, request, context, network, item, asked, known, device)


def _reply(
    clients: SimulatedClients,
    request: Message,
    context: Context,
    network: Tensors,
    answered: Answered,
    asked: PredictionRequest,
    metrics: dict[str, float],
    device: str,
) -> Message | Exception:
    """Say what one client answered, and how sure it may be of it."""
    splits, client_id = clients.splits, client_of(context)
    indices = clients.partitions[client_id]
    try:
        if (recipe := asked.recipe) is not None and asked.negative_ids is not None:
            name = clients.architectures[client_id]
            model = clients.place(device).networks.loaded(name, network)
            fitted = fit_for(
                recipe, asked.negative_ids, model, splits.private, indices, splits.proxy
            )
            context.state[DISCRIMINATOR] = write_discriminator(fitted)
        reply = answer(
            asked,
            answered,
            splits.test if asked.proxy_ids is None else splits.proxy,
            read_discriminator(context.state.array_records.get(DISCRIMINATOR)),
            client_id=client_id,
            num_examples=len(indices),
            metrics=metrics,
            architecture=clients.architectures[client_id],
            parameters=arrays_of(network) if asked.send_parameters else None,
        )
        if asked.proxy_ids is None:
            values = measures(torch.from_numpy(reply.logits), splits.test.labels)
            reply.metrics.update(values)
        return Message(write_reply(reply), reply_to=request)
    except Exception as error:  # the client's, not the group's
        return error


# --- what it costs ---


def _training_and_answers(clients: SimulatedClients, client_id: int, content: RecordDict) -> float:
    asked, training = read_request(content), local_training(clients, client_id, content)
    digesting = _digesting(clients, client_id, asked)
    return digesting + training + _answering(clients, client_id, asked)


def _answers_only(clients: SimulatedClients, client_id: int, content: RecordDict) -> float:
    return _answering(clients, client_id, read_request(content))


def _answering(clients: SimulatedClients, client_id: int, asked: PredictionRequest) -> float:
    """Answer the inputs, and those that a discriminator of features is fitted on."""
    inputs = len(clients.splits.test) if asked.proxy_ids is None else len(asked.proxy_ids)
    if asked.negative_ids is not None and asked.recipe and asked.recipe.inputs == "features":
        inputs += len(clients.partitions[client_id]) + len(asked.negative_ids)
    return inputs * forward(clients, client_id)


def _digesting(clients: SimulatedClients, client_id: int, asked: PredictionRequest) -> float:
    """Ask the student that was fed back, and imitate it; of one's own architecture, neither."""
    if asked.student is None or asked.proxy_ids is None:
        return 0.0
    own = clients.place("cpu").networks.of(clients.architectures[client_id])
    if not unlike(own, asked.student):
        return 0.0
    imitating = PASSES * asked.digest_epochs * forward(clients, client_id)
    return len(imitated_ids(asked)) * (clients.forward[STUDENT] + imitating)


def _of_proxy(content: RecordDict) -> bool:
    """Tell answers that teach from those to the test set, which are a measurement."""
    return "proxy-ids" in content.get(INPUTS, RecordDict())


def _fault(request: Message, reply: Message) -> str | None:
    client_id = client_id_of(request.metadata.dst_node_id)
    return fault_in_answers(read_request(request.content), client_id, reply.content)


EVALUATE_PREDICTIONS = Handler(
    "evaluate.predictions",
    evaluate_predictions,
    keys=(
        *(SERVER_ROUND, "num-inputs", "num-classes", "digest-epochs", "temperature", "answers"),
        *("send-parameters", "discriminator-inputs"),
        *("discriminator-balanced", "discriminator-l2"),
    ),
    records=(INPUTS,),
    replies={
        **{CONFIG: ConfigRecord, PREDICTIONS: ArrayRecord},
        **{METRICS: MetricRecord, ARRAYS: ArrayRecord},
    },
    limits={PREDICTIONS: MAX_LOGIT},
    fault=_fault,
    multiplications=_answers_only,
    timed=_of_proxy,
)
"""Answers to the proxy examples that are named, or to the test set."""

TRAIN_PREDICTIONS = replace(
    EVALUATE_PREDICTIONS,
    kind="train.predictions",
    answer=train_predictions,
    records=(INPUTS, FED_BACK),
    multiplications=_training_and_answers,
    timed=None,
)
"""The same after local training, and after taking in a student that is fed back."""
