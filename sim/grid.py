"""Flower's `Grid` over a pool: any strategy that works on Flower's grid works on this one."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.app.constants import DEFAULT_TTL
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from clients.messages import client_id_of, node_id_of, size_bytes
from sim.exchanges import Exchange, names_of, scalars_of
from sim.pool import Pool
from sim.states import freeze, thaw
from sim.tasks import Outcome, Task, assume_task_identity

CLIENT_RAISED, REPLY_REJECTED = 2, 4
"""Codes of Flower's `Error`: CLIENT_APP_RAISED_EXCEPTION and REPLY_MESSAGE_UNAVAILABLE."""

MAX_LOOKS = 30
"""How often a strategy may list the nodes without sending anything. Flower's `sample_nodes` lists
them once a second for as long as there are fewer than it wants, and ours never grow in number."""


class PoolGrid(Grid):
    """Sends messages to simulated clients and keeps, between rounds, each client's state."""

    def __init__(
        self,
        pool: Pool,
        architectures: Sequence[str],
        screen: Callable[[Message, Message], str | None],
        on_answer: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Prepare the grid.

        Args:
            pool: Where clients run.
            architectures: Name of each client's architecture; their number is the population's.
            screen: (request, reply) -> reason to reject the reply, or None; e.g.
                `clients.screening.fault_of`.
            on_answer: Called with (answers so far, answers to come in all) after each answer to a
                batch of messages, for a progress bar.
        """
        assume_task_identity(run_id=1)
        self._run = Run.create_empty(run_id=1)
        self._pool = pool
        self._architectures = architectures
        self._screen = screen
        self._on_answer = on_answer
        self._states: dict[int, Any] = {}
        self._changed: set[int] = set()
        self._pending: dict[str, Message] = {}
        self._turns: dict[int, int] = {}
        self._looks = 0
        self.server_round = 0
        self.exchanges: list[Exchange] = []

    def begin_round(self, server_round: int) -> None:
        """Start a round: exchanges so far are forgotten, the clients' states are not."""
        self.server_round = server_round
        self._turns = {}
        self.exchanges = []

    def state_of(self, client_id: int) -> RecordDict:
        """Return a client's state, as `Context.state` was after its last successful message."""
        return self._pool.state_of(self._states.get(client_id))

    def changed_states(self) -> Iterator[tuple[int, bytes]]:
        """Yield client id and frozen state where the state changed since the last call, by id."""
        for client_id in sorted(self._changed):
            yield client_id, freeze(self.state_of(client_id))
        self._changed = set()

    def load_states(self, states: Mapping[int, bytes]) -> None:
        """Give clients the states that they had at a checkpoint, frozen, by client id."""
        for client_id, frozen in states.items():
            self._states[client_id] = self._pool.share(thaw(frozen))

    def reject_unlike(self, replies: list[Message]) -> list[Message]:
        """Turn the replies whose records are not named as most replies' are into errors.

        Flower's strategies refuse a whole round in which replies disagree in that.

        Args:
            replies: Of one phase of this round.

        Returns:
            The same replies, the odd ones replaced by errors and noted as failures.
        """
        names = [names_of(reply.content) if reply.has_content() else None for reply in replies]
        usual = Counter(name for name in names if name is not None).most_common(1)
        return [
            reply if name is None or name == usual[0][0] else self._reject(reply)
            for reply, name in zip(replies, names, strict=True)
        ]

    def _reject(self, reply: Message) -> Message:
        client_id = client_id_of(reply.metadata.src_node_id)
        reason = "its records or their keys are not named as the other clients' are"
        self.exchanges = [
            replace(exchange, failure=reason, metrics={})
            if exchange.client_id == client_id and exchange.phase == reply.metadata.message_type
            else exchange
            for exchange in self.exchanges
        ]
        refused = Message(Error(REPLY_REJECTED, reason), reply_to=reply)
        # A reply to the reply has its ends swapped: this error comes from the client.
        refused.metadata.__dict__["_src_node_id"] = reply.metadata.src_node_id
        return refused

    # --- Flower's interface ---

    def set_run(self, run: Run) -> None:
        """Set the run whose id messages carry."""
        self._run = run
        assume_task_identity(run.run_id)

    @property
    def run(self) -> Run:
        """Run information."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Build a message; see `flwr.serverapp.Grid.create_message`."""
        return Message(
            content,
            dst_node_id=dst_node_id,
            message_type=message_type,
            group_id=group_id,
            ttl=ttl or DEFAULT_TTL,
        )

    def get_node_ids(self) -> Iterable[int]:
        """Return the node ids of all clients, in the order of client ids.

        Returns:
            One id per client; the same in every run.

        Raises:
            RuntimeError: The strategy keeps looking and never sends: it waits for more clients.
        """
        self._looks += 1
        if self._looks > MAX_LOOKS:
            raise RuntimeError(
                f"the strategy waits for more clients than the federation's "
                f"{len(self._architectures)}: lower its min_available_nodes, min_train_nodes and "
                "min_evaluate_nodes, or raise clients.num_clients"
            )
        return [node_id_of(client_id) for client_id in range(len(self._architectures))]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Accept messages; they run when their replies are pulled."""
        ids = []
        for message in messages:
            client_id = client_id_of(message.metadata.dst_node_id)
            if not 0 <= client_id < len(self._architectures):
                raise ValueError(f"no client has node id {message.metadata.dst_node_id}")
            turn = self._turns.get(client_id, 0)
            self._turns[client_id] = turn + 1
            message_id = f"{self.server_round}-{client_id}-{turn}"
            message.metadata.__dict__["_message_id"] = message_id  # Flower's grids set it likewise
            self._pending[message_id] = message
            ids.append(message_id)
        self._looks = 0
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Run the messages of these ids and return their replies, ordered by client.

        A client with several messages gets them one after the other, and its replies stay in the
        order in which they were pushed.
        """
        waves: dict[int, list[Message]] = {}
        order: dict[int, int] = {}
        for message_id in message_ids:
            message = self._pending.pop(message_id)
            wave = order.get(message.metadata.dst_node_id, 0)
            order[message.metadata.dst_node_id] = wave + 1
            waves.setdefault(wave, []).append(message)
        replies: list[Message] = []
        for wave in sorted(waves):
            replies += self._run_wave(waves[wave])
        return sorted(replies, key=lambda reply: reply.metadata.src_node_id)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and return all replies, ordered by client.

        Args:
            messages: What to send.
            timeout: Ignored: a reply that came in time on a fast machine only would make the
                result depend on the machine.

        Returns:
            One reply per message; one with an error where the client raised or its reply was
            rejected.
        """
        return self.pull_messages(self.push_messages(messages))

    # --- steps ---

    def _run_wave(self, requests: list[Message]) -> list[Message]:
        shared: dict[int, Any] = {}  # equal payload objects are shared once
        tasks, by_client = [], {}
        for request in sorted(requests, key=lambda m: m.metadata.dst_node_id):
            client_id = client_id_of(request.metadata.dst_node_id)
            if id(request.content) not in shared:
                shared[id(request.content)] = self._pool.share(request.content)
            by_client[client_id] = request
            tasks.append(self._task(client_id, request, shared[id(request.content)]))
        outcomes = []
        for outcome in self._pool.run(tasks):
            outcomes.append(outcome)
            self._on_answer(len(outcomes), len(tasks))
        outcomes.sort(key=lambda outcome: outcome.client_id)
        return [self._receive(by_client[outcome.client_id], outcome) for outcome in outcomes]

    def _task(self, client_id: int, request: Message, content: Any) -> Task:
        return Task(
            client_id=client_id,
            num_clients=len(self._architectures),
            turn=int(request.metadata.message_id.rsplit("-", 1)[1]),
            server_round=self.server_round,
            metadata=request.metadata,
            content=content,
            state=self._states.get(client_id),
        )

    def _receive(self, request: Message, outcome: Outcome) -> Message:
        """Screen a client's reply, note the exchange; keep its state if all went well."""
        reply, failure, code = outcome.reply, "", REPLY_REJECTED
        if outcome.raised is not None or reply is None:
            failure, code = outcome.raised.reason if outcome.raised else "no reply", CLIENT_RAISED
        elif reply.has_error():
            failure = reply.error.reason or f"error {reply.error.code}"
        else:
            failure = self._screen(request, reply) or ""
        self._note(request, outcome, failure)
        if reply is None or failure:
            return Message(Error(code, failure), reply_to=request)
        self._states[outcome.client_id] = outcome.state
        self._changed.add(outcome.client_id)
        return reply

    def _note(self, request: Message, outcome: Outcome, failure: str) -> None:
        content = outcome.reply.content if outcome.reply and outcome.reply.has_content() else None
        metrics = {} if content is None else scalars_of(content)
        self.exchanges.append(
            Exchange(
                server_round=self.server_round,
                client_id=outcome.client_id,
                phase=request.metadata.message_type,
                architecture=self._architectures[outcome.client_id],
                request_bytes=size_bytes(request.content),
                reply_bytes=0 if content is None else size_bytes(content),
                metrics={} if failure else metrics,
                failure=failure,
                traceback=outcome.raised.traceback if outcome.raised else "",
            )
        )
