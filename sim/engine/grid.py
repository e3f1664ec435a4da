"""Flower's `Grid` over a pool: any strategy that works on Flower's grid works on this one."""

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

from flwr.app import Message, RecordDict
from flwr.app.constants import DEFAULT_TTL
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from clients.messages.accumulator import Intake
from clients.messages.payload_routing import Post
from clients.messages.requests import client_id_of, node_id_of
from clients.population.profiles import Profiles
from sim.engine.client_states import ClientStates
from sim.engine.clock import is_measurement, wave_s
from sim.engine.dispatch import Waves
from sim.engine.exchanges import Exchange, Look, reject_unlike
from sim.engine.peer_payloads import Payloads
from sim.workers.pools import Pool
from sim.workers.process_setup import assume_task_identity

MAX_LOOKS = 30
"""How often a strategy may list the nodes without sending anything. Flower's `sample_nodes` lists
them once a second for as long as there are fewer than it wants, and ours never grow in number."""

WATCHED_TURNS = 2**20
"""A client's turns in a round from which on it is only watched: more than any strategy asks."""


class TooFewClients(RuntimeError):
    """A strategy waits for more clients than the federation has."""


class PoolGrid(Grid):
    """Sends messages to simulated clients and keeps, between rounds, each client's state."""

    def __init__(
        self,
        pool: Pool,
        architectures: Sequence[str],
        on_answer: Callable[[int, int], None] = lambda done, total: None,
        group_size: int = 1,
        cost: Callable[[int], float] = lambda client_id: 1.0,
        states: MutableMapping[int, Any] | None = None,
        profiles: Profiles | None = None,
        on_note: Callable[[str], None] = lambda note: None,
        encode: Callable[[Message], RecordDict] | None = None,
    ) -> None:
        """Prepare the grid.

        Args:
            pool: Where clients run.
            architectures: Name of each client's architecture; their number is the population's.
            on_answer: Called with (answers so far, answers to come in all) after each answer to a
                batch of messages, for a progress bar.
            group_size: Most clients that a worker gets at once, >= 1. Where answers are folded, or
                like clients trained in one step, it is part of the bits.
            cost: Client id -> how long it may take, in any unit, from the config alone: clients are
                grouped by it and the longest groups run first.
            states: Where handles of clients' states are kept, empty; None = in memory.
            profiles: How fast clients are; None = there is no virtual clock.
            on_note: Called with what the user should know of how clients are run, once each.
            encode: As of `Waves`.
        """
        assume_task_identity(run_id=1)
        self._run = Run.create_empty(run_id=1)
        self._num_clients = len(architectures)
        self.states = ClientStates(pool, {} if states is None else states)
        self.payloads = Payloads(pool)
        self._pool = pool
        self._waves = Waves(
            pool=pool,
            architectures=architectures,
            on_answer=on_answer,
            on_note=self._note,
            group_size=group_size,
            cost=cost,
            states=self.states,
            payloads=self.payloads,
            profiles=profiles,
            encode=encode,
        )
        self._on_note, self._notes = on_note, set[str]()
        self._pending: dict[str, Message] = {}
        self._turns: dict[tuple[int, bool], int] = {}
        self._looks = 0
        self.server_round = 0
        self.exchanges: list[Exchange] = []
        self.simulated_time_s = None if profiles is None else 0.0

    def _note(self, note: str) -> None:
        """Pass on what another process may have said already."""
        if note not in self._notes:
            self._notes.add(note)
            self._on_note(note)

    def begin_round(self, server_round: int) -> None:
        """Start a round: exchanges so far are forgotten, the clients' states are not."""
        self.server_round = server_round
        self.simulated_time_s = None if self.simulated_time_s is None else 0.0
        self._turns = {}
        self.exchanges = []

    def reject_unlike(self, replies: list[Message], look: Look) -> list[Message] | None:
        """Return the replies of a phase, the odd ones as errors; see `exchanges.reject_unlike`."""
        if (found := reject_unlike(replies, self.exchanges, look)) is None:
            return None
        kept, self.exchanges = found
        return kept

    def send_and_fold(self, messages: Iterable[Message], intake: Intake) -> Iterable[Message]:
        """Send messages; return the replies as one part, and errors.

        Args:
            messages: What to send; where a client gets several, each of its turns makes one reply.
            intake: Adds replies up where they are made, or sifts them; None = as
                `send_and_receive`.

        Returns:
            What the reducer made of the usable replies, and the others one by one.
        """
        return self._pull(self.push_messages(messages), intake)

    def send_with_post(
        self, messages: Iterable[Message], post: Post, intake: Intake
    ) -> Iterable[Message]:
        """Send messages, to each its letters mixed; return the replies as the intake says.

        Args:
            messages: What to send, one for each client.
            post: Whose payloads each gets, and how they are mixed.
            intake: What becomes of the replies.

        Returns:
            The replies.

        Raises:
            KeyError: A payload is not there; names it.
        """
        return self._pull(self.push_messages(messages), intake, post)

    def measure(self, messages: Iterable[Message]) -> Iterable[Message]:
        """Send what only measures, with handlers that say so, and note nothing but failures.

        Args:
            messages: What to send.

        Returns:
            As `send_and_receive`.
        """
        noted = len(self.exchanges)
        replies = self.send_and_receive(messages)
        failed = [each for each in self.exchanges[noted:] if each.failure]
        self.exchanges[noted:] = [replace(e, request_bytes=0, reply_bytes=0) for e in failed]
        return replies

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
            TooFewClients: The strategy keeps looking and never sends.
        """
        self._looks += 1
        if self._looks > MAX_LOOKS:
            raise TooFewClients(
                f"the strategy waits for more clients than the federation's "
                f"{self._num_clients}: lower its min_available_nodes, min_train_nodes and "
                "min_evaluate_nodes, or raise clients.num_clients"
            )
        return range(node_id_of(0), node_id_of(self._num_clients))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Accept messages; they run when their replies are pulled."""
        ids = []
        for message in messages:
            client_id = client_id_of(message.metadata.dst_node_id)
            if not 0 <= client_id < self._num_clients:
                raise ValueError(f"no client has node id {message.metadata.dst_node_id}")
            # Who watches must not shift the streams of what comes after it.
            watched = is_measurement(message, self._pool.handlers)
            turn = self._turns.get((client_id, watched), WATCHED_TURNS if watched else 0)
            self._turns[client_id, watched] = turn + 1
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

    def _pull(
        self, message_ids: Iterable[str], intake: Intake, post: Post | None = None
    ) -> list[Message]:
        waves: dict[int, list[Message]] = {}
        order: dict[int, int] = {}
        for message_id in message_ids:
            message = self._pending.pop(message_id)
            wave = order.get(message.metadata.dst_node_id, 0)
            order[message.metadata.dst_node_id] = wave + 1
            waves.setdefault(wave, []).append(message)
        replies: list[Message] = []
        for wave in sorted(waves):
            came, exchanges = self._waves.run(self.server_round, waves[wave], intake, post)
            replies += came
            self.exchanges += exchanges
            if self.simulated_time_s is not None:
                self.simulated_time_s += wave_s(each.simulated_time_s for each in exchanges)
        return sorted(replies, key=lambda reply: reply.metadata.src_node_id)
