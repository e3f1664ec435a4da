"""The Flower ClientApp: what every simulated client does with a message.

A client is (what it is told, its partition, its state). Its state, the context's record, goes into
a call and comes out of it; nothing else is kept, so any process may run any client at any time.
"""

from collections.abc import Sequence
from functools import partial
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from clients.architectures import (
    ModelFunction,
    build,
    load_parameters,
    parameters_of,
    unlike,
)
from clients.data import Dataset, Splits, normalised
from clients.discriminator import (
    Discriminator,
    fit_discriminator,
    own_probability,
)
from clients.losses import cross_entropy, kl
from clients.messages import (
    ARRAYS,
    CONFIG,
    METRICS,
    PREDICTIONS,
    PredictionReply,
    PredictionRequest,
    crc32_of,
    read_arrays,
    read_request,
    write_arrays,
    write_reply,
)
from clients.prediction import measures, predict, predict_with_features
from clients.seeding import Purpose, generator
from clients.training import Trainer

MODEL, DISCRIMINATOR = "model", "discriminator"
"""Names of a client's records in `Context.state`."""


class SimulatedClients:
    """All clients of a federation, as one program that workers run for one client at a time."""

    def __init__(
        self,
        splits: Splits,
        partitions: list[npt.NDArray[np.int64]],
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

    def app(self) -> ClientApp:
        """Return the ClientApp, for our grid or for Flower's own engine."""
        app = ClientApp()
        app.train()(self.train_parameters)
        app.evaluate()(self.evaluate_parameters)
        app.train(PREDICTIONS)(self.train_predictions)
        app.evaluate(PREDICTIONS)(self.evaluate_predictions)
        return app

    # --- parameters: Flower's own convention, so that FedAvg and its kin work unmodified ---

    def train_parameters(self, message: Message, context: Context) -> Message:
        """Load the parameters received, train on private data, return the parameters."""
        client_id = client_of(context)
        server_round = cast(int, message.content.config_records[CONFIG]["server-round"])
        model = self._model_with(client_id, message.content.array_records[ARRAYS])
        losses = self._train_privately(model, client_id, server_round)
        metrics: dict[str, int | float] = {"num-examples": len(self.partitions[client_id])}
        metrics["train-loss"] = losses[-1] if losses else 0.0
        content = RecordDict(
            {ARRAYS: write_arrays(parameters_of(model)), METRICS: MetricRecord({**metrics})}
        )
        return Message(content, reply_to=message)

    def evaluate_parameters(self, message: Message, context: Context) -> Message:
        """Measure the parameters received on the client's private data."""
        client_id = client_of(context)
        model = self._model_with(client_id, message.content.array_records[ARRAYS])
        indices = self.partitions[client_id]
        logits = predict(model, self.splits.private, indices)
        values = measures(logits, self.splits.private.labels[indices])
        named = {f"private-{name}": value for name, value in values.items()}
        metrics = MetricRecord({"num-examples": len(indices), **named})
        return Message(RecordDict({METRICS: metrics}), reply_to=message)

    # --- predictions: the client keeps a network of its own and says what it answers ---

    def train_predictions(self, message: Message, context: Context) -> Message:
        """Take in the student if it was fed back, train, answer the proxy examples."""
        request = read_request(message.content)
        assert request.proxy_ids is not None, "train.predictions without proxy ids"
        client_id = client_of(context)
        model = self._own_model(client_id, context)
        if request.student is not None:
            self._digest(model, request, client_id)
        losses = self._train_privately(model, client_id, request.server_round)
        discriminator = self._fit_discriminator(model, request, client_id)
        context.state[MODEL] = write_arrays(parameters_of(model))
        if discriminator is not None:
            context.state[DISCRIMINATOR] = _write_discriminator(discriminator)
        reply = _answer(
            model,
            self.splits.proxy,
            request,
            discriminator,
            client_id=client_id,
            num_examples=len(self.partitions[client_id]),
            metrics={"train-loss": losses[-1]} if losses else {},
        )
        return Message(write_reply(reply), reply_to=message)

    def evaluate_predictions(self, message: Message, context: Context) -> Message:
        """Answer with the client's own network: the proxy ids if there are any, else the test."""
        request = read_request(message.content)
        client_id = client_of(context)
        model = self._own_model(client_id, context)
        stored = context.state.array_records.get(DISCRIMINATOR)
        discriminator = None if stored is None else _read_discriminator(stored)
        reply = _answer(
            model,
            self.splits.test if request.proxy_ids is None else self.splits.proxy,
            request,
            discriminator,
            client_id=client_id,
            num_examples=len(self.partitions[client_id]),
            metrics={},
        )
        if request.proxy_ids is None:
            scores = measures(torch.from_numpy(reply.logits), self.splits.test.labels)
            reply.metrics.update(scores)
        return Message(write_reply(reply), reply_to=message)

    # --- steps ---

    def _fresh(self, client_id: int) -> nn.Module:
        return build(
            self.models[self.architectures[client_id]],
            self.splits.private.image_shape,
            self.splits.private.num_classes,
            generator(self.seed, Purpose.INITIALISE, 0, client_id),
        )

    def _model_with(self, client_id: int, record: ArrayRecord) -> nn.Module:
        model = self._fresh(client_id)
        load_parameters(model, read_arrays(record))
        return model

    def _own_model(self, client_id: int, context: Context) -> nn.Module:
        model = self._fresh(client_id)
        if MODEL in context.state.array_records:
            load_parameters(model, read_arrays(context.state.array_records[MODEL]))
        return model

    def _train_privately(self, model: nn.Module, client_id: int, server_round: int) -> list[float]:
        indices = self.partitions[client_id]
        return self.train(
            model,
            self.splits.private,
            indices,
            torch.from_numpy(self.splits.private.labels[indices]),
            cross_entropy,
            generator(self.seed, Purpose.LOCAL_TRAINING, server_round, client_id),
        )

    def _digest(self, model: nn.Module, request: PredictionRequest, client_id: int) -> None:
        """Become the student where the architectures agree, else imitate it on the proxy ids."""
        assert request.student is not None, "nothing was fed back"
        assert request.proxy_ids is not None, "train.predictions without proxy ids"
        if unlike(model, request.student) is None:
            load_parameters(model, request.student)
            return
        rng = generator(self.seed, Purpose.DIGEST, request.server_round, client_id)
        private = self.splits.private
        student = build(self.student, private.image_shape, private.num_classes, rng)
        load_parameters(student, request.student)
        logits = predict(student, self.splits.proxy, request.proxy_ids)
        self.train(
            model,
            self.splits.proxy,
            request.proxy_ids,
            (logits / request.temperature).softmax(-1),
            partial(kl, temperature=request.temperature),
            rng,
            epochs=request.digest_epochs,
        )

    def _fit_discriminator(
        self, model: nn.Module, request: PredictionRequest, client_id: int
    ) -> Discriminator | None:
        if request.recipe is None or request.negative_ids is None:
            return None
        own, negatives = (
            _pixels(dataset, ids)
            if request.recipe.inputs == "pixels"
            else predict_with_features(model, dataset, ids)[1].numpy()
            for dataset, ids in (
                (self.splits.private, self.partitions[client_id]),
                (self.splits.proxy, request.negative_ids),
            )
        )
        return fit_discriminator(
            own, negatives, balanced=request.recipe.balanced, l2=request.recipe.l2
        )


def client_of(context: Context) -> int:
    """Return the client id, which Flower calls the partition id."""
    return int(context.node_config["partition-id"])


def _answer(
    model: nn.Module,
    dataset: Dataset,
    request: PredictionRequest,
    discriminator: Discriminator | None,
    *,
    client_id: int,
    num_examples: int,
    metrics: dict[str, float],
) -> PredictionReply:
    ids = np.arange(len(dataset)) if request.proxy_ids is None else request.proxy_ids
    features = None
    if request.recipe is not None and request.recipe.inputs == "features":
        logits, features = predict_with_features(model, dataset, ids)
    else:
        logits = predict(model, dataset, ids)
    own_probs = None
    if request.recipe is not None and discriminator is not None:
        inputs = _pixels(dataset, ids) if features is None else features.numpy()
        own_probs = own_probability(discriminator, inputs)
    return PredictionReply(
        server_round=request.server_round,
        client_id=client_id,
        inputs_crc32=crc32_of(request.proxy_ids),
        num_examples=num_examples,
        logits=logits.numpy(),
        own_probs=own_probs,
        mask=None,
        metrics=metrics,
        answers=request.answers,
    )


def _pixels(dataset: Dataset, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    return normalised(dataset, ids).reshape(len(ids), -1)


def _write_discriminator(fitted: Discriminator) -> ArrayRecord:
    return ArrayRecord({name: Array(value) for name, value in vars(fitted).items()})


def _read_discriminator(record: ArrayRecord) -> Discriminator:
    return Discriminator(**read_arrays(record))
