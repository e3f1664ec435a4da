"""One message each of some clients: cut into groups, run by the pool, settled in order."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Error, Message, RecordDict

from clients.messages.accumulator import Accumulator, Intake, Keep, Reducer, part_message
from clients.messages.payload_routing import Post
from clients.messages.requests import client_id_of
from clients.messages.sizes import size_bytes
from clients.population.profiles import Profiles
from sim.engine.client_states import ClientStates
from sim.engine.clock import exchange_s, is_measurement, letters_s, takes_time
from sim.engine.exchanges import CLIENT_RAISED, REPLY_REJECTED, Exchange, exchange_of
from sim.engine.grouping import cut_groups
from sim.engine.peer_payloads import Payloads
from sim.workers.pools import Pool
from sim.workers.tasks import Answer, Group, Outcome, Task


@dataclass(frozen=True, eq=False)
class Waves:
    """Runs waves of messages; what clients leave is kept in `states` and `payloads`.

    Attributes:
        pool: Where clients run.
        architectures: Name of each client's architecture.
        on_answer: Called with (answers so far, answers to come in all).
        on_note: Called with what the user should know of how clients are run.
        group_size: Most clients of a group, >= 1.
        cost: Client id -> how long it may take, in any unit.
        states: Of clients.
        payloads: That clients left for others.
        profiles: How fast clients are; None = there is no virtual clock.
        encode: Makes of a request's content what travels to all who get it; None = as it is.
    """

    pool: Pool
    architectures: Sequence[str]
    on_answer: Callable[[int, int], None]
    on_note: Callable[[str], None]
    group_size: int
    cost: Callable[[int], float]
    states: ClientStates
    payloads: Payloads
    profiles: Profiles | None = None
    encode: Callable[[Message], RecordDict] | None = None

    def run(
        self, server_round: int, requests: list[Message], intake: Intake, post: Post | None
    ) -> tuple[list[Message], list[Exchange]]:
        """Run one message each of some clients.

        Args:
            server_round: 0..R.
            requests: The messages.
            intake: What becomes of their replies.
            post: What is delivered with them; None = nothing.

        Returns:
            Their replies, or a part of all that were added up; and every exchange, by client.

        Raises:
            RuntimeError: The strategy's rule failed where clients run.
            KeyError: A payload is not there; names it.
        """
        by_client = {client_id_of(m.metadata.dst_node_id): m for m in requests}
        sizes, groups = self._groups(server_round, by_client, intake)
        waits: dict[int, float] = {}
        if post is not None:
            sizes = self.payloads.received_bytes(post, sizes)
            groups = (self.payloads.delivered(group, post) for group in groups)
            if self.profiles is not None:
                waits = letters_s(self.profiles, post, self.payloads)
        wave = _Wave(self, server_round, by_client, sizes, waits, intake)
        sums: Accumulator | None = None
        for part in wave.parts(groups):
            if sums is None:
                assert isinstance(intake, Reducer), "else there are no parts"
                sums = intake.accumulator()
            sums.merge(part)
        if sums is not None:
            wave.replies.append(part_message(sums.part(), requests[0]))
        return wave.replies, sorted(wave.exchanges, key=lambda e: e.client_id)

    def _groups(
        self, server_round: int, by_client: Mapping[int, Message], intake: Intake
    ) -> tuple[dict[int, int], Iterator[Group]]:
        """Cut the requests into groups of like clients, the longest first; measure them.

        Only the requests and the config decide, so that what is folded or trained together, and
        hence the bits, does not depend on the workers.
        """
        handles: dict[int, Any] = {}  # equal payload objects are shared, and measured, once
        sizes: dict[int, int] = {}
        kinds: dict[int, tuple[int, str, str]] = {}
        for client_id, request in by_client.items():
            key = id(request.content)
            if key not in handles:
                content = request.content if self.encode is None else self.encode(request)
                handles[key], sizes[key] = self.pool.share(content), size_bytes(content)
            kinds[client_id] = (
                key, request.metadata.message_type, self.architectures[client_id]
            )  # fmt: skip
        request_bytes = {client_id: sizes[kind[0]] for client_id, kind in kinds.items()}
        cuts = cut_groups(kinds, self.group_size, self.cost)
        # One by one as a worker is free: states in files are read no sooner.
        groups = (
            self._group(
                number,
                server_round,
                [by_client[k] for k in members],
                handles[kinds[members[0]][0]],
                intake,
            )
            for number, members in enumerate(cuts)
        )
        return request_bytes, groups

    def _group(
        self,
        number: int,
        server_round: int,
        requests: list[Message],
        content: Any,
        intake: Intake,
    ) -> Group:
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
            num_clients=len(self.architectures),
            server_round=server_round,
            intake=intake,
            content=content,
            states=tuple(self.states.handle(task.client_id) for task in tasks),
        )


class _Wave:
    """What has come of one wave so far."""

    def __init__(
        self,
        waves: Waves,
        server_round: int,
        by_client: Mapping[int, Message],
        request_bytes: Mapping[int, int],
        waits: Mapping[int, float],
        intake: Intake,
    ) -> None:
        self._waves = waves
        self._server_round = server_round
        self._by_client = by_client
        self._request_bytes = request_bytes
        self._waits = waits
        self._intake = intake
        self.replies: list[Message] = []
        self.exchanges: list[Exchange] = []

    def parts(self, groups: Iterable[Group]) -> Iterator[RecordDict]:
        """Run groups; yield their parts in the groups' order, and add to `replies` all others."""
        outcomes: dict[int, Outcome] = {}
        turn, done = 0, 0
        for outcome in self._waves.pool.run(groups):
            outcomes[outcome.number] = outcome
            done += len(outcome.answers)
            self._waves.on_answer(done, len(self._by_client))
            for note in outcome.notes:
                self._waves.on_note(note)
            while turn in outcomes:
                settled = outcomes.pop(turn)
                turn += 1
                if settled.broken:
                    raise RuntimeError(
                        f"the strategy's rule failed where clients run:\n{settled.broken}"
                    )
                for answer, state in zip(settled.answers, settled.states, strict=True):
                    self.replies += self._receive(self._by_client[answer.client_id], answer, state)
                if isinstance(self._intake, Keep):
                    self._waves.payloads.take_in(self._intake.name, settled)
                if settled.part is not None:
                    yield settled.part

    def _receive(self, request: Message, answer: Answer, state: Any) -> list[Message]:
        """Note the exchange, keep the client's state; return its reply unless it was folded."""
        if state is not None:
            self._waves.states.put(answer.client_id, state)
        self.exchanges.append(
            exchange_of(
                request,
                answer,
                self._server_round,
                self._waves.architectures[answer.client_id],
                self._request_bytes[answer.client_id],
                self._seconds(request, answer),
                is_measurement(request, self._waves.pool.handlers),
            )
        )
        if answer.failure:
            code = CLIENT_RAISED if answer.raised else REPLY_REJECTED
            return [Message(Error(code, answer.failure), reply_to=request)]
        return [] if answer.reply is None else [answer.reply]

    def _seconds(self, request: Message, answer: Answer) -> float | None:
        if (profiles := self._waves.profiles) is None:
            return None
        if not takes_time(request, self._waves.pool.handlers):
            return 0.0
        return exchange_s(
            profiles,
            request,
            answer,
            self._request_bytes[answer.client_id],
            kept=isinstance(self._intake, Keep),
            letters_s=self._waits.get(answer.client_id, 0.0),
        )
