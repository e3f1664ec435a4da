"""The Flower ClientApp: what simulated clients do with the messages they get.

A client is (what it is told, its partition, its state). Its state, the context's record, goes into
a call and comes out of it; nothing else is kept.
"""

from collections.abc import Iterator, Sequence

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.feature_exchange import EVALUATE_FEATURES, FEATURES, evaluate_features
from clients.messages import EVALUATE_PREDICTIONS, PREDICTIONS, TRAIN_PREDICTIONS
from clients.parameter_exchange import evaluate_parameters, train_parameters
from clients.prediction_exchange import evaluate_predictions, train_predictions
from clients.simulated import SimulatedClients


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
        self.evaluate(FEATURES)(one)

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
            EVALUATE_FEATURES: evaluate_features,
        }[requests[0].metadata.message_type]
        yield from handle(self.clients, requests, contexts, device)
