"""A round of peers: who is there, what goes between them, what it weighed, and what is left."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from clients.handlers.base import Handler
from clients.handlers.state import START
from clients.messages.accumulator import Intake
from clients.messages.answers import Answers
from clients.messages.payload_routing import KeptPayloads, Mix, Post, Routing
from clients.messages.requests import CONFIG
from clients.messages.round_views import GraphView
from strategies.decentralised.delivery import Delivery, Neighbours, payload_name
from strategies.decentralised.driver_routing import Courier, HeldPayloads
from strategies.decentralised.late_messages import Weighed

BEGUN = "begun"


class Meeting:
    """Sends messages to peers and payloads between them, round by round."""

    def __init__(self, neighbours: Neighbours, watch: Callable[[GraphView], None]) -> None:
        """Begin before the first round.

        Args:
            neighbours: Who hears of whom.
            watch: Receives each round's graph when it is closed.
        """
        self.neighbours = neighbours
        self.server_round = 0
        self._watch = watch
        self._grid: Grid | None = None
        self._router: Routing | None = None
        self._nodes: list[int] = []
        self._restored: Weighed = {}
        self._start: ArrayRecord | None = None
        self._begun = np.zeros(neighbours.num_peers, dtype=np.bool_)
        self._names: set[str] = set()
        self._begin()

    def open(self, server_round: int, grid: Grid, start: ArrayRecord | None = None) -> list[int]:
        """Begin a round; return who is to make something.

        Args:
            server_round: 1..R.
            grid: Where messages go.
            start: Parameters that all peers begin with; the first ones given count. None = each has
                its own.

        Returns:
            Peers, ascending.
        """
        self.server_round = server_round
        self._start = self._start or start
        self._grid = grid
        self._nodes = sorted(grid.get_node_ids())
        if self._router is None:
            peers = {node: peer for peer, node in enumerate(self._nodes)}
            self._router = grid if isinstance(grid, Routing) else Courier(grid, peers)
            for each, (payload, weighs) in self._restored.items():
                self._router.payloads.keep(*each, payload, weighs)
            self._restored = {}
        self._begin()
        return self.neighbours.making(server_round)

    def present(self) -> list[int]:
        """Return who belongs to the federation in this round."""
        return self.neighbours.present(self.server_round)

    def messages(self, peers: Sequence[int], content: RecordDict, asks: Handler) -> list[Message]:
        """Address one content to peers; those that have no parameters get what all begin with."""
        first = content
        if self._start is not None:
            first = RecordDict({**content, START: self._start})
        return [
            Message(
                content if self._begun[peer] else first,
                dst_node_id=self._nodes[peer],
                message_type=asks.kind,
            )
            for peer in peers
        ]

    def ask(self, peers: Sequence[int], asks: Handler, **about: bool) -> list[Message]:
        """Address peers; all that they are told is the round, and what is said about it."""
        config = ConfigRecord({"server-round": self.server_round, **about})
        return self.messages(peers, RecordDict({CONFIG: config}), asks)

    def began(self, peers: Sequence[int]) -> None:
        """Note who has parameters now."""
        self._begun[peers] = True

    def received(self, replies: Iterable[Message], intake: Intake) -> list[Message]:
        """Return replies as the intake says, if the grid has not seen to it."""
        if isinstance(self._router, Courier):
            return self._router.received(replies, intake)
        return list(replies)

    def senders(self, replies: Iterable[Message]) -> list[int]:
        """Return whose replies are usable."""
        nodes = [reply.metadata.src_node_id for reply in replies if reply.has_content()]
        return sorted(int(np.searchsorted(self._nodes, node)) for node in nodes)

    @property
    def grid(self) -> Grid:
        """Where messages go."""
        assert self._grid is not None, "open comes first"
        return self._grid

    @property
    def start(self) -> ArrayRecord | None:
        """What all peers begin with; None = each has its own."""
        return self._start

    def deliver(self, kind: str, have: Sequence[int], with_own: bool = True) -> Delivery:
        """Say which payloads arrive where, and note it; see `Neighbours.deliver`."""
        delivery = self.neighbours.deliver(self.server_round, kind, have, with_own)
        payloads = self._routed().payloads
        for receiver, letters in delivery.letters.items():
            for letter in letters:
                if letter.sender != receiver:
                    self._bytes += payloads.size(letter.name, letter.sender)
        self._deliveries.append(delivery)
        self._names.add(payload_name(kind, self.server_round))
        return delivery

    def post(
        self, messages: list[Message], delivery: Delivery, mix: Mix, intake: Intake
    ) -> list[Message]:
        """Send messages, to each its letters mixed; return the replies as the intake says."""
        post = Post(delivery.letters, mix)
        return list(self._routed().send_with_post(messages, post, intake))

    def close(self, teachers: Answers | None = None) -> dict[str, float]:
        """End a round: show its graph, drop what nobody waits for.

        Args:
            teachers: Answers of all peers on the probe examples, for whoever watches.

        Returns:
            Messages between peers that arrived, were lost or came late; their bytes, in all and
            each; the share of pairs of peers in which one could have influenced the other.
        """
        edges = [delivery.edges() for delivery in self._deliveries]
        senders = np.concatenate([pair[0] for pair in edges] or [np.zeros(0, dtype=np.int64)])
        receivers = np.concatenate([pair[1] for pair in edges] or [np.zeros(0, dtype=np.int64)])
        there = self.neighbours.availability
        self._watch(
            GraphView(
                server_round=self.server_round,
                senders=senders,
                receivers=receivers,
                present=there.present(self.server_round),
                awake=there.awake(self.server_round),
                teachers=teachers,
            )
        )
        waiting = self.neighbours.waiting()
        self._routed().payloads.forget(self._names - waiting)
        self._names &= waiting
        count = len(senders)
        return {
            "messages": float(count),
            "edge-bytes": float(self._bytes),
            "bytes-per-edge": self._bytes / count if count else 0.0,
            "lost-messages": float(sum(delivery.lost for delivery in self._deliveries)),
            "late-messages": float(sum(delivery.late for delivery in self._deliveries)),
            "informed-share": self.neighbours.informed_share(),
        }

    def end(self) -> None:
        """Drop all payloads: no round of these peers will follow."""
        if self._router is not None:
            self._router.payloads.forget(self._names | self.neighbours.end())
        self._names, self._restored = set(), {}

    def state(self) -> RecordDict:
        """Return what is remembered, payloads on their way included."""
        payloads: KeptPayloads = HeldPayloads()
        if self._router is not None:
            payloads = self._router.payloads
        for each, (payload, weighs) in self._restored.items():  # no round since then
            payloads.keep(*each, payload, weighs)
        state = self.neighbours.state(payloads)
        state[BEGUN] = ConfigRecord({"peers": np.packbits(self._begun).tobytes()})
        if self._start is not None:
            state[START] = self._start
        return state

    def restore(self, state: RecordDict) -> None:
        """Go on from what `state` returned."""
        self._restored = self.neighbours.restore(state)
        self._names = self.neighbours.waiting()
        packed: Any = state.config_records[BEGUN]["peers"]
        bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=len(self._begun))
        self._begun = bits.astype(np.bool_)
        self._start = state.array_records.get(START)

    def _begin(self) -> None:
        self._deliveries: list[Delivery] = []
        self._bytes = 0

    def _routed(self) -> Routing:
        assert self._router is not None, "open comes first"
        return self._router
