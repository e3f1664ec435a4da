"""The Flower ClientApp: what simulated clients do with the messages they get.

A client is (what it is told, its partition, its state). Its state, the context's record, goes into
a call and comes out of it; nothing else is kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import cast

import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.answering import answer, fit_for, ids_of, read_discriminator, write_discriminator
from clients.architectures import unlike
from clients.arrays import read_arrays, write_arrays
from clients.losses import kl
from clients.messages import (
    ARRAYS,
    CONFIG,
    EVALUATE_PREDICTIONS,
    METRICS,
    PREDICTIONS,
    TRAIN_PREDICTIONS,
    PredictionRequest,
    read_request,
    write_reply,
)
from clients.place import Answered, Lesson
from clients.prediction import measures, predict
from clients.resident import Tensors, as_tensors
from clients.seeding import Purpose, generator, stream
from clients.simulated import STUDENT, SimulatedClients

MODEL, DISCRIMINATOR = "model", "discriminator"
"""Names of a client's records in `Context.state`."""


class SimulatedApp(ClientApp):
    """The ClientApp of simulated clients. Our engine hands it several messages at once."""

    def __init__(self, clients: SimulatedClients) -> None:
        """Register the clients' answers to each type of message, for any engine of Flower's.

        Args:
            clients: All of the federation's.
        """
        super().__init__()
        self.clients = clients

        def one(message: Message, context: Context) -> Message:
            item = next(self.serve([message], [context]))
            if isinstance(item, Exception):
                raise item
            return item

        self.train()(one)
        self.evaluate()(one)
        self.train(PREDICTIONS)(one)
        self.evaluate(PREDICTIONS)(one)

    def serve(
        self, requests: Sequence[Message], contexts: Sequence[Context], device: str = "cpu"
    ) -> Iterator[Message | Exception]:
        """Answer messages of one type and content to clients of one architecture.

        Args:
            requests: One for each client.
            contexts: Theirs; the records of their state are replaced.
            device: Where to compute.

        Yields:
            For each request in turn the reply, or what kept the client from one.
        """
        handle = {
            "train": train_parameters,
            "evaluate": evaluate_parameters,
            TRAIN_PREDICTIONS: train_predictions,
            EVALUATE_PREDICTIONS: evaluate_predictions,
        }[requests[0].metadata.message_type]
        yield from handle(self.clients, requests, contexts, device)


# --- parameters: Flower's own convention, so that FedAvg and its kin work unmodified ---


def train_parameters(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Iterator[Message | Exception]:
    """Load the parameters received, train on private data, return the parameters."""
    content = requests[0].content
    server_round = cast(int, content.config_records[CONFIG]["server-round"])
    start = as_tensors(read_arrays(content.array_records[ARRAYS]), device)
    ids = [client_of(context) for context in contexts]
    trained = clients.train(ids, [start] * len(ids), server_round, device)
    for request, client_id, result in zip(requests, ids, trained, strict=True):
        if isinstance(result, Exception):
            yield result
            continue
        metrics: dict[str, int | float] = {"num-examples": len(clients.partitions[client_id])}
        metrics["train-loss"] = result.losses[-1] if result.losses else 0.0
        arrays = write_arrays(result.parameters)
        reply = RecordDict({ARRAYS: arrays, METRICS: MetricRecord({**metrics})})
        yield Message(reply, reply_to=request)


def evaluate_parameters(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Iterator[Message | Exception]:
    """Measure the parameters received on each client's private data."""
    received = as_tensors(read_arrays(requests[0].content.array_records[ARRAYS]), device)
    private = clients.splits.private
    for request, context in zip(requests, contexts, strict=True):
        client_id = client_of(context)
        indices = clients.partitions[client_id]
        try:
            name = clients.architectures[client_id]
            model = clients.place(device).networks.loaded(name, received)
            values = measures(predict(model, private, indices), private.labels[indices])
        except Exception as error:  # the client's, not the group's
            yield error
            continue
        named = {f"private-{name}": value for name, value in values.items()}
        metrics = MetricRecord({"num-examples": len(indices), **named})
        yield Message(RecordDict({METRICS: metrics}), reply_to=request)


# --- predictions: each client keeps a network of its own and says what it answers ---


def train_predictions(
    clients: SimulatedClients, requests: Sequence[Message], contexts: Sequence[Context], device: str
) -> Iterator[Message | Exception]:
    """Take in the student if it was fed back, train, answer the proxy examples."""
    asked = read_request(requests[0].content)
    ids = [client_of(context) for context in contexts]
    starts = [_own(clients, context, device) for context in contexts]
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
) -> Iterator[Message | Exception]:
    """Answer the test set, or proxy examples, with the networks as they are."""
    asked = read_request(requests[0].content)
    networks = [_own(clients, context, device) for context in contexts]
    yield from _answer(clients, requests, contexts, networks, asked, {}, device)


def _own(clients: SimulatedClients, context: Context, device: str) -> Tensors | Exception:
    """Return the network that a client's state holds; before it has one, what it begins with."""
    try:
        if (stored := context.state.array_records.get(MODEL)) is not None:
            return as_tensors(read_arrays(stored), device)
        client_id = client_of(context)
        rng = generator(clients.seed, Purpose.INITIALISE, 0, client_id)
        networks = clients.place(device).networks
        return dict(networks.fresh(clients.architectures[client_id], rng).state_dict())
    except Exception as error:  # the client's, not the group's
        return error


def _digested(
    clients: SimulatedClients,
    ids: Sequence[int],
    starts: Sequence[Tensors | Exception],
    asked: PredictionRequest,
    device: str,
) -> list[Tensors | Exception]:
    """Become the student where the architectures agree, else imitate it on the proxy ids."""
    assert asked.student is not None, "nothing was fed back"
    assert asked.proxy_ids is not None, "train.predictions without proxy ids"
    student, proxy_ids = as_tensors(asked.student, device), asked.proxy_ids
    networks, proxy = clients.place(device).networks, clients.splits.proxy
    if not unlike(networks.of(clients.architectures[ids[0]]), student):
        return [student] * len(starts)
    logits = predict(networks.loaded(STUDENT, student), proxy, proxy_ids)
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
) -> Iterator[Message | Exception]:
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
        )
        if asked.proxy_ids is None:
            values = measures(torch.from_numpy(reply.logits), splits.test.labels)
            reply.metrics.update(values)
        return Message(write_reply(reply), reply_to=request)
    except Exception as error:  # the client's, not the group's
        return error


def client_of(context: Context) -> int:
    """Return the client id, which Flower calls the partition id."""
    return int(context.node_config["partition-id"])
