"""Routing over a grid that cannot: payloads come to the strategy, and go out with messages."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from clients.messages.accumulator import Intake, Keep
from clients.messages.payload_routing import Post
from clients.messages.sizes import size_bytes


@dataclass(frozen=True, eq=False)
class HeldPayloads:
    """Payloads in this process, by name and client."""

    held: dict[str, dict[int, tuple[RecordDict, int | None]]] = field(default_factory=dict)

    def size(self, name: str, client_id: int) -> int:
        """Return the bytes of a payload."""
        payload, weighs = self.held[name][client_id]
        return size_bytes(payload) if weighs is None else weighs

    def read(self, name: str, client_id: int) -> RecordDict:
        """Return a payload."""
        return self.held[name][client_id][0]

    def keep(
        self, name: str, client_id: int, payload: RecordDict, weighs: int | None = None
    ) -> None:
        """Hold a payload, and its bytes; None = those it has now."""
        self.held.setdefault(name, {})[client_id] = payload, weighs

    def forget(self, names: Iterable[str]) -> None:
        """Drop the payloads of these names."""
        for name in names:
            self.held.pop(name, None)


class Courier:
    """Does for any grid of Flower's what ours does by itself: keeps, mixes and delivers."""

    def __init__(self, grid: Grid, peers: dict[int, int]) -> None:
        """Begin without payloads.

        Args:
            grid: Any of Flower's.
            peers: Number of each peer, from 0, by its node id.
        """
        self.payloads = HeldPayloads()
        self._grid = grid
        self._peers = peers

    def send_with_post(
        self, messages: Iterable[Message], post: Post, intake: Intake
    ) -> Iterable[Message]:
        """Send messages, to each its letters mixed: `clients.messages.payload_routing.Routing`."""
        messages = list(messages)
        for message in messages:
            peer = self._peers[message.metadata.dst_node_id]
            letters = [(each, self.payloads.read(each.name, each.sender)) for each in
                       post.letters.get(peer, ())]  # fmt: skip
            message.content = RecordDict({**message.content, **post.mix(peer, letters)})
        return self.received(self._grid.send_and_receive(messages), intake)

    def received(self, replies: Iterable[Message], intake: Intake) -> list[Message]:
        """Keep what is to be kept; show the rest."""
        replies = [reply for reply in replies if not _faulty(reply, intake)]
        for reply in replies:
            if isinstance(intake, Keep) and reply.has_content():
                content = reply.content
                self.payloads.keep(intake.name, self._peers[reply.metadata.src_node_id], content)
                reply.content = intake.show(content)
        return replies


def _faulty(reply: Message, intake: Intake) -> bool:
    fault = intake.fault if isinstance(intake, Keep) else None
    return fault is not None and reply.has_content() and fault(reply, reply) is not None
