"""Flower's `Grid` over a pool: any strategy that works on Flower's grid works on this one."""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from itertools import chain
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.app.constants import DEFAULT_TTL
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from clients.folding import Intake, Reducer
from clients.messages import client_id_of, node_id_of, size_bytes
from sim.client_states import ClientStates
from sim.exchanges import CLIENT_RAISED, REPLY_REJECTED, Exchange, exchange_of, reject_unlike
from sim.grouping import cut_groups
from sim.pool import Pool
from sim.processes import assume_task_identity
from sim.tasks import Answer, Group, Outcome, Screen, Task

MAX_LOOKS = 30
"""How often a strategy may list the nodes without sending anything. Flower's `sample_nodes` lists
them once a second for as long as there are fewer than it wants, and ours never grow in number."""


class PoolGrid(Grid):
    """Sends messages to simulated clients and keeps, between rounds, each client's state."""

    def __init__(
        self,
        pool: Pool,
        architectures: Sequence[str],
        screen: Screen,
        on_answer: Callable[[int, int], None] = lambda done, total: None,
        group_size: int = 1,
        cost: Callable[[int], float] = lambda client_id: 1.0,
        states: MutableMapping[int, Any] | None = None,
    ) -> None:
        """Prepare the grid.

        Args:
            pool: Where clients run.
            architectures: Name of each client's architecture; their number is the population's.
            screen: (request, reply) -> reason to reject the reply, or None; e.g.
                `clients.screening.fault_of`.
            on_answer: Called with (answers so far, answers to come in all) after each answer to a
                batch of messages, for a progress bar.
            group_size: Most clients that a worker gets at once, >= 1. Where answers are folded, or
                like clients trained in one step, it is part of the bits.
            cost: Client id -> how long it may take, in any unit, from the config alone: clients are
                grouped by it and the longest groups run first.
            states: Where handles of clients' states are kept, empty; None = in memory.
        """
        assume_task_identity(run_id=1)
        self._run = Run.create_empty(run_id=1)
        self._pool = pool
        self._architectures = architectures
        self._screen = screen
        self._on_answer = on_answer
        self._group_size = group_size
        self._cost = cost
        self.states = ClientStates(pool, {} if states is None else states)
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

    def reject_unlike(self, replies: list[Message]) -> list[Message]:
        """Return the replies of a phase, the odd ones as errors; see `exchanges.reject_unlike`."""
        kept, self.exchanges = reject_unlike(replies, self.exchanges)
        return kept

    def send_and_fold(self, messages: Iterable[Message], intake: Intake) -> Iterable[Message]:
        """Send messages; return the replies as one, in the name of the first client, and errors.

        Args:
            messages: What to send; where a client gets several, each of its turns makes one reply.
            intake: Folds replies where they are made, or sifts them; None = as
                `send_and_receive`.

        Returns:
            What the reducer made of the usable replies, and the others one by one.
        """
        return self._pull(self.push_messages(messages), intake)

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
        return range(node_id_of(0), node_id_of(len(self._architectures)))

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
        return self._pull(message_ids, None)

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

    def _pull(self, message_ids: Iterable[str], intake: Intake) -> list[Message]:
        waves: dict[int, list[Message]] = {}
        order: dict[int, int] = {}
        for message_id in message_ids:
            message = self._pending.pop(message_id)
            wave = order.get(message.metadata.dst_node_id, 0)
            order[message.metadata.dst_node_id] = wave + 1
            waves.setdefault(wave, []).append(message)
        replies: list[Message] = []
        for wave in sorted(waves):
            replies += self._run_wave(waves[wave], intake)
        return sorted(replies, key=lambda reply: reply.metadata.src_node_id)

    def _run_wave(self, requests: list[Message], intake: Intake) -> list[Message]:
        """Run one message each of some clients; return their replies, or one of them all."""
        by_client = {client_id_of(m.metadata.dst_node_id): m for m in requests}
        groups = self._groups(by_client, intake)
        replies: list[Message] = []
        parts = self._parts(groups, by_client, replies)
        if (first := next(parts, None)) is not None:
            assert isinstance(intake, Reducer), "else there are no parts"
            content = intake.merge(chain([first], parts))
            for _ in parts:  # what the reducer did not look at
                pass
            failed = {client_id_of(reply.metadata.src_node_id) for reply in replies}
            speaker = min(by_client.keys() - failed)
            replies.append(Message(content, reply_to=by_client[speaker]))
        return replies

    def _groups(self, by_client: Mapping[int, Message], intake: Intake) -> Iterator[Group]:
        """Cut the requests into groups of like clients, the longest first.

        Only the requests and the config decide, so that what is folded or trained together, and
        hence the bits, does not depend on the workers.
        """
        handles: dict[int, Any] = {}  # equal payload objects are shared, and measured, once
        sizes: dict[int, int] = {}
        kinds: dict[int, tuple[int, str, str]] = {}
        for client_id, request in by_client.items():
            key = id(request.content)
            if key not in handles:
                handles[key] = self._pool.share(request.content)
                sizes[key] = size_bytes(request.content)
            kinds[client_id] = (
                key, request.metadata.message_type, self._architectures[client_id]
            )  # fmt: skip
        self._request_bytes = {client_id: sizes[kind[0]] for client_id, kind in kinds.items()}
        cuts = cut_groups(kinds, self._group_size, self._cost)
        # One by one as a worker is free: states in files are read no sooner.
        return (
            self._group(
                number, [by_client[k] for k in members], handles[kinds[members[0]][0]], intake
            )
            for number, members in enumerate(cuts)
        )

    def _group(self, number: int, requests: list[Message], content: Any, intake: Intake) -> Group:
        tasks = [
            Task(
                client_id=client_id_of(request.metadata.dst_node_id),
                turn=int(request.metadata.message_id.rsplit("-", 1)[1]),
                metadata=request.metadata,
            )
            for request in requests
        ]
        return Group(
            number=number,
            tasks=tuple(tasks),
            num_clients=len(self._architectures),
            server_round=self.server_round,
            screen=self._screen,
            intake=intake,
            content=content,
            states=tuple(self.states.handle(task.client_id) for task in tasks),
        )

    def _parts(
        self, groups: Iterable[Group], by_client: Mapping[int, Message], replies: list[Message]
    ) -> Iterator[RecordDict]:
        """Run groups; yield their parts in the groups' order, and add to `replies` all others."""
        outcomes: dict[int, Outcome] = {}
        turn, done, before = 0, 0, len(self.exchanges)
        for outcome in self._pool.run(groups):
            outcomes[outcome.number] = outcome
            done += len(outcome.answers)
            self._on_answer(done, len(by_client))
            while turn in outcomes:
                settled = outcomes.pop(turn)
                turn += 1
                if settled.broken:
                    raise RuntimeError(f"the strategy's reducer failed:\n{settled.broken}")
                for answer, state in zip(settled.answers, settled.states, strict=True):
                    replies += self._receive(by_client[answer.client_id], answer, state)
                if settled.part is not None:
                    yield settled.part
        # Of this wave only: a client's earlier exchanges stay before.
        self.exchanges[before:] = sorted(self.exchanges[before:], key=lambda e: e.client_id)

    def _receive(self, request: Message, answer: Answer, state: Any) -> list[Message]:
        """Note the exchange, keep the client's state; return its reply unless it was folded."""
        if state is not None:
            self.states.put(answer.client_id, state)
        self.exchanges.append(
            exchange_of(
                request,
                answer,
                self.server_round,
                self._architectures[answer.client_id],
                self._request_bytes[answer.client_id],
            )
        )
        if answer.failure:
            code = CLIENT_RAISED if answer.raised else REPLY_REJECTED
            return [Message(Error(code, answer.failure), reply_to=request)]
        return [] if answer.reply is None else [answer.reply]
