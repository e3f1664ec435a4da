"""The Flower ClientApp: what simulated clients do with the messages they get.

A client is (what it is told, its partition, its state). Its state, the context's record, goes into
a call and comes out of it; nothing else is kept.
"""

from collections.abc import Iterator, Sequence

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.handlers.cost import multiplications
from clients.handlers.features import evaluate_features
from clients.handlers.known_keys import unread
from clients.handlers.neighbours import (
    evaluate_own,
    learn_with_received,
    send_own,
    take_mixed,
    train_mixed,
    train_own,
)
from clients.handlers.parameters import evaluate_parameters, train_parameters
from clients.handlers.predictions import evaluate_predictions, train_predictions
from clients.handlers.targets import learn_targets, relay
from clients.messages.requests import (
    EVALUATE_FEATURES,
    EVALUATE_OWN,
    EVALUATE_PREDICTIONS,
    FEATURES,
    PREDICTIONS,
    RELAY,
    SEND_OWN,
    SHOW_OWN,
    TAKE_MIXED,
    TRAIN_MIXED,
    TRAIN_OWN,
    TRAIN_PREDICTIONS,
    TRAIN_RECEIVED,
    TRAIN_TARGETS,
)
from clients.population.clients import SimulatedClients

NEIGHBOURLY = {
    TRAIN_TARGETS: learn_targets,
    RELAY: relay,
    TRAIN_OWN: train_own,
    SEND_OWN: send_own,
    SHOW_OWN: send_own,
    EVALUATE_OWN: evaluate_own,
    TAKE_MIXED: take_mixed,
    TRAIN_MIXED: train_mixed,
    TRAIN_RECEIVED: learn_with_received,
}
"""What is asked where clients talk to each other."""


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
        for kind in NEIGHBOURLY:
            category, action = kind.split(".")
            {"train": self.train, "query": self.query, "evaluate": self.evaluate}[category](action)(
                one
            )
        self.evaluate(FEATURES)(one)

    def serve(
        self, requests: Sequence[Message], contexts: Sequence[Context], device: str = "cpu"
    ) -> Iterator[Message | Exception]:
        """Answer messages of one type to clients of one architecture.

        Args:
            requests: One for each client; all of one content, but for what neighbours sent.
            contexts: Theirs; the records of their state are replaced.
            device: Where to compute.

        Yields:
            For each request in turn the reply, or what kept the client from one: also a key or
            a record that nobody reads (`clients.handlers.known_keys`).
        """
        handle = {
            "train": train_parameters,
            "evaluate": evaluate_parameters,
            TRAIN_PREDICTIONS: train_predictions,
            EVALUATE_PREDICTIONS: evaluate_predictions,
            **NEIGHBOURLY,
            EVALUATE_FEATURES: evaluate_features,
        }[kind := requests[0].metadata.message_type]
        messenger = self.clients.messenger is not None
        # Of one for all: they differ in what neighbours sent at most.
        if fault := unread(kind, requests[0].content, messenger):
            yield from (ValueError(fault) for _ in requests)
        else:
            yield from handle(self.clients, requests, contexts, device)

    def multiplications(self, request: Message) -> float:
        """Count what a client computes for a request, if there is a clock that goes by it."""
        return 0.0 if self.clients.profiles is None else multiplications(self.clients, request)
