"""The Flower ClientApp: simulated clients, and which handler answers what they are sent.

A client is (what it is told, its partition, its state). Its state, the context's record, goes into
a call and comes out of it; nothing else is kept.
"""

from collections.abc import Iterable, Iterator, Sequence

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.execution.isolation import keeps_nothing
from clients.handlers.base import Handler, by_kind, is_evaluation, missing, unread
from clients.handlers.coded_parameters import decode, encoded
from clients.handlers.coded_requests import decode_request, encoded_request
from clients.handlers.local_contexts import local_contexts, settled
from clients.handlers.parameters import MESSENGERS, PARAMETERS
from clients.handlers.state import round_told
from clients.messages.requests import client_id_of
from clients.population.clients import SimulatedClients


class SimulatedApp(ClientApp):
    """The ClientApp of simulated clients. Our engine hands it several messages at once."""

    def __init__(self, clients: SimulatedClients, handlers: Iterable[Handler] = ()) -> None:
        """Register handlers, for any engine of Flower's.

        Args:
            clients: All of the federation's.
            handlers: The strategy's. Parameters out, parameters back (Flower's "train" and
                "evaluate") are answered anyway, unless one of these does.

        Raises:
            ValueError: Two of them answer one type of message.
        """
        super().__init__()
        self.clients = clients
        usual = PARAMETERS if clients.messenger is None else MESSENGERS
        self.handlers = by_kind(usual) | by_kind(handlers)

        def one(message: Message, context: Context) -> Message:
            item = next(self.serve([message], [context]))
            if isinstance(item, Exception):
                raise item
            if reason := self.decode(message, item):  # here, for Flower's servers do not
                raise ValueError(reason)
            return item

        doors = {"train": self.train, "query": self.query, "evaluate": self.evaluate}
        for kind in self.handlers:
            category, _, action = kind.partition(".")
            doors[category](*filter(None, [action]))(one)

    def serve(
        self, requests: Sequence[Message], contexts: Sequence[Context], device: str = "cpu"
    ) -> Iterator[Message | Exception]:
        """Answer messages of one type to clients of one architecture.

        Args:
            requests: One for each client; all of one content, but for what neighbours sent.
            contexts: Theirs; the records of their state are replaced.
            device: Where to compute.

        Yields:
            For each request in turn the reply, or what kept the client from one: also a type of
            message that no handler answers, and a key or a record that its handler does not read.
        """
        handler = self.handlers.get(kind := requests[0].metadata.message_type)
        if handler is None:
            fault: str | None = (
                f"no handler answers '{kind}' messages, only {', '.join(self.handlers)}: a "
                "strategy names its own in `handlers`"
            )
        else:  # of one for all: they differ in what neighbours sent at most
            fault = self._decoded(requests, device) or unread(handler, requests[0].content)
        if handler is None or fault:
            yield from (ValueError(fault) for _ in requests)
            return
        local = local_contexts(self.clients, requests, contexts)
        clients = self.clients.knowing(local, round_told(requests[0].content))
        answers = handler.answer(clients, requests, contexts, device)
        for request, context in zip(requests, contexts, strict=True):
            with keeps_nothing(**{f"handler of '{kind}'": handler.answer}):
                try:
                    item = next(answers, None)
                except KeyError as error:
                    raise missing(handler, request.content, error) from error
            if item is None:
                return
            if isinstance(item, KeyError):
                item = missing(handler, request.content, item)
            item = settled(item, context, local) if local else item
            yield encoded(self.clients, request, context, item, device)

    def encode_request(self, request: Message) -> RecordDict:
        """Make of a content what travels, once for all clients that get it: `clients.codec_down`.

        Args:
            request: The first of those that have it.

        Returns:
            Another one; the same where nothing is encoded, as in what only measures.

        Raises:
            ValueError: The codec fails.
        """
        handler = self.handlers.get(kind := request.metadata.message_type)
        measured = handler is None or handler.measurement or is_evaluation(kind)
        if self.clients.codec_down is None or measured:
            return request.content
        return encoded_request(self.clients, request)

    def _decoded(self, requests: Sequence[Message], device: str) -> str | None:
        """Decode what requests hold, in place; say why that cannot be done, or None."""
        if self.clients.codec_down is None:
            return None
        try:
            for request in requests:
                decode_request(self.clients, request.content, device)
        except ValueError as error:
            return str(error)
        return None

    @property
    def encodes(self) -> bool:
        """Whether there is a codec of parameters at all."""
        return self.clients.codec is not None

    def decode(self, request: Message, reply: Message) -> str | None:
        """Undo in place what `clients.codec` has made of a reply's parameters.

        Args:
            request: What was asked.
            reply: What the client sent, be it what it may.

        Returns:
            Why that cannot be done; None if it is.
        """
        return decode(self.clients, request, reply)

    def run_notes(self) -> list[str]:
        """Say why clients train one by one in this process that were to train together."""
        return self.clients.run_notes()

    def multiplications(self, request: Message, context: Context | None = None) -> float:
        """Count what a client computes for a request, if there is a clock that goes by it.

        Args:
            request: As the client gets it, what neighbours sent mixed in.
            context: The client's, once it has answered; None = its network has the shape that its
                architecture is built with.

        Returns:
            Their number, >= 0; 0 for what our clients do not know or cannot read.
        """
        handler = self.handlers.get(request.metadata.message_type)
        if self.clients.profiles is None or handler is None or handler.multiplications is None:
            return 0.0
        client_id, clients = client_id_of(request.metadata.dst_node_id), self.clients
        if context is not None and clients.shape is not None:
            known = local_contexts(clients, [request], [context])
            clients = clients.knowing(known, round_told(request.content))
        try:
            return float(handler.multiplications(clients, client_id, request.content))
        except Exception:  # it may hold anything; what cannot be read, its client fails at at once
            return 0.0
