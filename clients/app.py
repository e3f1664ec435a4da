"""The Flower ClientApp: what simulated clients do with the messages they get.

A client is (what it is told, its partition, its state). Its state, the context's record, goes into
a call and comes out of it; nothing else is kept, so any process may run any client at any time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.answering import answer, fit_for, read_discriminator, write_discriminator
from clients.architectures import ModelFunction, Parameters
from clients.arrays import read_arrays, write_arrays
from clients.data import Splits
from clients.losses import cross_entropy, kl
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
from clients.prediction import measures, predict
from clients.resident import Networks, Tensors, as_tensors, work_of
from clients.seeding import Purpose, generator
from clients.training import Trainer

MODEL, DISCRIMINATOR = "model", "discriminator"
"""Names of a client's records in `Context.state`."""

STUDENT = "(student)"
"""The student's place among the resident networks."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What local training left: parameters and buffers, and the mean loss of each epoch."""

    parameters: Parameters
    losses: list[float]


class SimulatedClients:
    """All clients of a federation, as one program that workers run for some clients at a time."""

    def __init__(
        self,
        splits: Splits,
        partitions: Sequence[npt.NDArray[np.int64]],
        architectures: Sequence[str],
        models: dict[str, ModelFunction],
        student: ModelFunction,
        train: Trainer,
        seed: int,
    ) -> None:
        """Describe the federation.

        Args:
            splits: Private, proxy and test sets.
            partitions: Indices into the private set, one array for each of K clients.
            architectures: Name of each client's architecture, one of `models`.
            models: Model functions by architecture name.
            student: The student's, to run it where its parameters are fed back.
            train: `clients.training.train` with its keyword arguments bound.
            seed: The run's seed.
        """
        self.splits = splits
        self.partitions = partitions
        self.architectures = architectures
        self.models = models
        self.student = student
        self.train = train
        self.seed = seed
        self._networks: dict[str, Networks] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what a process builds for itself."""
        return self.__dict__ | {"_networks": {}}

    def app(self) -> "SimulatedApp":
        """Return the ClientApp, for our engine or for Flower's own."""
        return SimulatedApp(self)

    def costs(self) -> Callable[[int], float]:
        """Return an estimate, by client id, of how long a client takes, in multiplications."""
        private = self.splits.private
        works = {
            name: work_of(model, private.image_shape, private.num_classes)
            for name, model in self.models.items()
        }
        return lambda k: works[self.architectures[k]] * len(self.partitions[k])

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
            "train": self._train_parameters,
            "evaluate": self._evaluate_parameters,
            TRAIN_PREDICTIONS: self._train_predictions,
            EVALUATE_PREDICTIONS: self._evaluate_predictions,
        }[requests[0].metadata.message_type]
        yield from handle(requests, contexts, device)

    # --- parameters: Flower's own convention, so that FedAvg and its kin work unmodified ---

    def _train_parameters(
        self, requests: Sequence[Message], contexts: Sequence[Context], device: str
    ) -> Iterator[Message | Exception]:
        """Load the parameters received, train on private data, return the parameters."""
        content = requests[0].content
        server_round = cast(int, content.config_records[CONFIG]["server-round"])
        start = as_tensors(read_arrays(content.array_records[ARRAYS]), device)
        ids = [client_of(context) for context in contexts]
        trained = self._train(ids, [start] * len(ids), server_round, device)
        for request, client_id, result in zip(requests, ids, trained, strict=True):
            if isinstance(result, Exception):
                yield result
                continue
            metrics: dict[str, int | float] = {"num-examples": len(self.partitions[client_id])}
            metrics["train-loss"] = result.losses[-1] if result.losses else 0.0
            arrays = write_arrays(result.parameters)
            reply = RecordDict({ARRAYS: arrays, METRICS: MetricRecord({**metrics})})
            yield Message(reply, reply_to=request)

    def _evaluate_parameters(
        self, requests: Sequence[Message], contexts: Sequence[Context], device: str
    ) -> Iterator[Message | Exception]:
        """Measure the parameters received on each client's private data."""
        received = as_tensors(read_arrays(requests[0].content.array_records[ARRAYS]), device)
        private = self.splits.private
        for request, context in zip(requests, contexts, strict=True):
            client_id = client_of(context)
            indices = self.partitions[client_id]
            try:
                model = self._place(device).loaded(self.architectures[client_id], received)
                values = measures(predict(model, private, indices), private.labels[indices])
            except Exception as error:  # the client's, not the group's
                yield error
                continue
            named = {f"private-{name}": value for name, value in values.items()}
            metrics = MetricRecord({"num-examples": len(indices), **named})
            yield Message(RecordDict({METRICS: metrics}), reply_to=request)

    # --- predictions: each client keeps a network of its own and says what it answers ---

    def _train_predictions(
        self, requests: Sequence[Message], contexts: Sequence[Context], device: str
    ) -> Iterator[Message | Exception]:
        """Take in the student if it was fed back, train, answer the proxy examples."""
        asked = read_request(requests[0].content)
        assert asked.proxy_ids is not None, "train.predictions without proxy ids"
        ids = [client_of(context) for context in contexts]
        starts = (self._start(context, asked, device) for context in contexts)
        trained = self._train(ids, starts, asked.server_round, device)
        for request, context, client_id, result in zip(
            requests, contexts, ids, trained, strict=True
        ):
            if isinstance(result, Exception):
                yield result
                continue
            context.state[MODEL] = write_arrays(result.parameters)
            losses = {"train-loss": result.losses[-1]} if result.losses else {}
            yield self._answer(request, asked, context, client_id, losses, device)

    def _evaluate_predictions(
        self, requests: Sequence[Message], contexts: Sequence[Context], device: str
    ) -> Iterator[Message | Exception]:
        """Answer the test set, or proxy examples, with the networks as they are."""
        asked = read_request(requests[0].content)
        for request, context in zip(requests, contexts, strict=True):
            yield self._answer(request, asked, context, client_of(context), {}, device)

    # --- steps ---

    def _place(self, device: str) -> Networks:
        if device not in self._networks:
            private = self.splits.private
            models = {**self.models, STUDENT: self.student}
            self._networks[device] = Networks(
                models, private.image_shape, private.num_classes, device
            )
        return self._networks[device]

    def _start(
        self, context: Context, asked: PredictionRequest, device: str
    ) -> Tensors | Exception:
        """Return what a client goes on from: its own network, after it took in the student."""
        try:
            client_id, place = client_of(context), self._place(device)
            name = self.architectures[client_id]
            if (stored := context.state.array_records.get(MODEL)) is not None:
                own = as_tensors(read_arrays(stored), device)
            else:
                rng = generator(self.seed, Purpose.INITIALISE, 0, client_id)
                own = dict(place.fresh(name, rng).state_dict())
            return own if asked.student is None else self._digest(own, name, asked, context, device)
        except Exception as error:  # the client's, not the group's
            return error

    def _digest(
        self, own: Tensors, name: str, asked: PredictionRequest, context: Context, device: str
    ) -> Tensors:
        """Become the student where the architectures agree, else imitate it on the proxy ids."""
        assert asked.student is not None, "nothing was fed back"
        assert asked.proxy_ids is not None, "train.predictions without proxy ids"
        student = as_tensors(asked.student, device)
        if {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in student.items()}:
            return student
        place, proxy = self._place(device), self.splits.proxy
        logits = predict(place.loaded(STUDENT, student), proxy, asked.proxy_ids)
        model = place.loaded(name, own)
        self.train(
            model,
            proxy,
            asked.proxy_ids,
            (logits / asked.temperature).softmax(-1),
            partial(kl, temperature=asked.temperature),
            generator(self.seed, Purpose.DIGEST, asked.server_round, client_of(context)),
            epochs=asked.digest_epochs,
        )
        return as_tensors(place.parameters_of(name), device)

    def _train(
        self,
        ids: Sequence[int],
        starts: Iterable[Tensors | Exception],
        server_round: int,
        device: str,
    ) -> Iterator[Trained | Exception]:
        """Train each client on its private data; say of each what came of it."""
        private = self.splits.private
        for client_id, start in zip(ids, starts, strict=True):
            if isinstance(start, Exception):
                yield start
                continue
            try:
                name, indices = self.architectures[client_id], self.partitions[client_id]
                model = self._place(device).loaded(name, start)
                losses = self.train(
                    model,
                    private,
                    indices,
                    torch.from_numpy(private.labels[indices]),
                    cross_entropy,
                    generator(self.seed, Purpose.LOCAL_TRAINING, server_round, client_id),
                )
                yield Trained(self._place(device).parameters_of(name), losses)
            except Exception as error:  # the client's, not the group's
                yield error

    def _answer(
        self,
        request: Message,
        asked: PredictionRequest,
        context: Context,
        client_id: int,
        metrics: dict[str, float],
        device: str,
    ) -> Message | Exception:
        """Answer with the network that the client's state holds."""
        try:
            splits, indices = self.splits, self.partitions[client_id]
            parameters = as_tensors(read_arrays(context.state.array_records[MODEL]), device)
            model = self._place(device).loaded(self.architectures[client_id], parameters)
            if (fitted := fit_for(asked, model, splits.private, indices, splits.proxy)) is not None:
                context.state[DISCRIMINATOR] = write_discriminator(fitted)
            reply = answer(
                asked,
                model,
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


class SimulatedApp(ClientApp):
    """The ClientApp of simulated clients. Our engine hands it several messages at once."""

    def __init__(self, clients: SimulatedClients) -> None:
        """Register the clients' answers to each type of message, for any engine of Flower's."""
        super().__init__()
        self.serve = clients.serve

        def one(message: Message, context: Context) -> Message:
            item = next(self.serve([message], [context]))
            if isinstance(item, Exception):
                raise item
            return item

        self.train()(one)
        self.evaluate()(one)
        self.train(PREDICTIONS)(one)
        self.evaluate(PREDICTIONS)(one)


def client_of(context: Context) -> int:
    """Return the client id, which Flower calls the partition id."""
    return int(context.node_config["partition-id"])
