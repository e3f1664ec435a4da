"""The round loop.

Flower's own, `Strategy.start`, always runs rounds 1..N and cannot resume, stop or report; this one
calls the same five methods of a strategy, and nothing else of it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.exception import AggregationError, InconsistentMessageReplies
from flwr.serverapp.strategy import Strategy

from clients.duck_typing import offers, told
from clients.handlers.weight_faults import fault_in_loss, fault_in_weight, first_fault
from clients.messages.accumulator import Fault, Intake, Receiving, Sieve
from clients.messages.round_views import RoundView
from clients.messages.sizes import NUM_EXAMPLES
from clients.seeding import Purpose, stream
from sim.engine.exchanges import Exchange, forms_of, names_of
from sim.engine.global_model_check import BadModel, require_measures, require_usable
from sim.engine.grid import PoolGrid, TooFewClients
from sim.engine.model_buffers import aggregated_train, of_its_own, weight_key
from sim.engine.parameter_round_view import parameter_view
from sim.engine.quorum import QuorumLost, require_quorum
from sim.errors import NoSuchNumber, PoolLost, ProbeError
from sim.workers.process_setup import seeded_globals

Aggregated = TypeVar("Aggregated")


@dataclass(frozen=True, eq=False)
class RoundReport:
    """What a round came to.

    Attributes:
        server_round: 1..R.
        arrays: The global model's parameters after the round.
        student: Metrics of the global model, from `evaluate`.
        train: Metrics that the strategy aggregated in training.
        evaluated: Metrics that the strategy aggregated in evaluation; empty if it was skipped.
        exchanges: Every request of the round and what came of it.
        simulated_time_s: How long the round took; None = there is no virtual clock.
    """

    server_round: int
    arrays: ArrayRecord
    student: dict[str, float]
    train: dict[str, float]
    evaluated: dict[str, float]
    exchanges: list[Exchange]
    simulated_time_s: float | None = None

    def first_failure(self) -> str:
        """Say who failed first, and why; "" if nobody did."""
        return next((str(exchange) for exchange in self.exchanges if exchange.failure), "")


ENDINGS = (
    *(QuorumLost, TooFewClients, BadModel, FloatingPointError, ProbeError, PoolLost),
    NoSuchNumber,
)
"""What ends a run and says itself all that there is to say; the rest is a defect of some code."""


def run_rounds(
    strategy: Strategy,
    grid: PoolGrid,
    arrays: ArrayRecord,
    *,
    rounds: int,
    seed: int,
    evaluate: Callable[[ArrayRecord], dict[str, float]],
    report: Callable[[RoundReport], bool | None],
    evaluate_every: int = 1,
    quorum: float = 0.5,
    first_round: int = 1,
    commit: Callable[[int, ArrayRecord], None] = lambda server_round, arrays: None,
    watch: Callable[[RoundView], None] | None = None,
    ask: Callable[[int, ArrayRecord], None] = lambda server_round, arrays: None,
    stopping: Callable[[], bool] = lambda: False,
    buffers: Collection[str] = (),
) -> ArrayRecord:
    """Run a federation.

    Args:
        strategy: Any Flower strategy.
        grid: Where its messages go.
        arrays: The global model's parameters before `first_round`.
        rounds: R, the last round.
        seed: The run's seed.
        evaluate: Measures the global model; called after every round that is evaluated.
        report: Called after each round, and with what there is of one that loses its quorum; True
            = the run ends with this round as it does with the last.
        evaluate_every: Evaluate each so many rounds, and after the last.
        quorum: Share of requests in (0, 1] that must get a usable reply.
        first_round: 1, or the round after the checkpoint that `arrays` came from.
        commit: Called with the round and the global model's parameters when all of a round is
            done; a checkpoint belongs here.
        watch: Receives a view of what clients sent back where that is parameters, one from each; a
            strategy that distils shows its rounds itself.
        ask: Called with the round and the global model's parameters once they are aggregated: here
            networks are asked for measurements.
        stopping: Whether this round is to be the last that is run now; asked when it is done.
        buffers: Names of arrays that are statistics or counters, not parameters: they are averaged,
            whatever the strategy does to them (`sim.engine.model_buffers`).

    Returns:
        The global model's parameters after the last round.

    Raises:
        KeyboardInterrupt: The run was to stop, and there are more rounds.
        QuorumLost: Fewer replies than `quorum` were usable; says which failed first, and why.
        BadModel: The strategy returned a global model that cannot be kept; says which, and why.
    """
    strategy.summary()
    for server_round in range(first_round, rounds + 1):
        grid.begin_round(server_round)
        evaluate_now = server_round % evaluate_every == 0 or server_round == rounds
        # Flower's strategies sample and add noise with the global generators.
        with _told_which(server_round), seeded_globals(stream(seed, Purpose.FLOWER, server_round)):
            try:
                # 1. Ask the cohort to train.  2. Collect its answers.
                requests = strategy.configure_train(server_round, arrays, ConfigRecord(), grid)
                intake = _intake(strategy, server_round, "train")  # of what it has asked
                replies = _exchange(grid, requests, intake, quorum, begun=0)
                asked = len(grid.exchanges)
                _show(watch, server_round, arrays, replies)
                # 3. Aggregate them into the global model.
                aggregate = partial(aggregated_train, strategy, server_round, arrays, buffers)
                aggregated, trained = _agreeing(strategy, aggregate, grid, replies, quorum)
                require_quorum(grid.exchanges[asked:], quorum)  # of what was asked meanwhile
                if aggregated is not None:
                    require_usable(strategy, server_round, arrays, aggregated)
                    arrays = aggregated
                ask(server_round, arrays)
                # 4. Evaluate, on the clients and here.
                evaluated: MetricRecord | None = None
                if evaluate_now:
                    evaluated = _evaluated(strategy, server_round, arrays, grid, quorum)
            except (QuorumLost, BadModel):
                report(_report(grid, arrays, {}, {}, {}))
                raise
        student = evaluate(arrays) if evaluate_now else {}
        # 5. Report.
        over = report(_report(grid, arrays, student, _scalars(trained), _scalars(evaluated)))
        stop = stopping()  # before the commit, which asks too: what is left is committed
        # 6. Commit.
        commit(server_round, arrays)
        if over is True:
            break
        if stop and server_round < rounds:
            raise KeyboardInterrupt
    return arrays


def _evaluated(
    strategy: Strategy, server_round: int, arrays: ArrayRecord, grid: PoolGrid, quorum: float
) -> MetricRecord | None:
    """Have the clients evaluate the global model, and aggregate what they say."""
    asked = len(grid.exchanges)
    sent = strategy.configure_evaluate(server_round, arrays, ConfigRecord(), grid)
    replies = _exchange(grid, sent, _intake(strategy, server_round, "evaluate"), quorum, asked)
    measure = partial(strategy.aggregate_evaluate, server_round)
    measured = _agreeing(strategy, measure, grid, replies, quorum)
    require_measures(strategy, server_round, "aggregate_evaluate", measured)
    return measured


@contextmanager
def _told_which(server_round: int) -> Iterator[None]:
    """Note the round on an error that does not say it, such as one of a user's scorer."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, ENDINGS):
            error.add_note(f"round {server_round}")
        raise


def _report(
    grid: PoolGrid,
    arrays: ArrayRecord,
    student: dict[str, float],
    train: dict[str, float],
    evaluated: dict[str, float],
) -> RoundReport:
    noted = grid.exchanges, grid.simulated_time_s
    return RoundReport(grid.server_round, arrays, student, train, evaluated, *noted)


def _intake(strategy: Strategy, server_round: int, phase: str) -> Intake:
    if isinstance(strategy, Receiving) and offers(strategy, Receiving):
        return strategy.intake(server_round, phase)
    faults: list[Fault] = []
    if (weight := weight_key(strategy)) != NUM_EXAMPLES:
        faults.append(partial(fault_in_weight, key=weight))
    loss = told(strategy, "train_loss_key")  # Flower's q-FedAvg weighs by powers of it
    if isinstance(loss, str) and loss and phase == "train":
        faults.append(partial(fault_in_loss, key=loss))
    return Sieve(partial(first_fault, faults=faults)) if faults else None


def _exchange(
    grid: PoolGrid, requests: Iterable[Message], intake: Intake, quorum: float, begun: int
) -> list[Message]:
    """Send requests, collect the replies, and see that enough of the phase's are usable.

    The phase began after so many exchanges: a strategy may have asked before it came to these.
    """
    replies = list(grid.send_and_fold(requests, intake))
    require_quorum(grid.exchanges[begun:], quorum)
    return replies


def _show(
    watch: Callable[[RoundView], None] | None,
    server_round: int,
    arrays: ArrayRecord,
    replies: list[Message],
) -> None:
    if watch is not None and (view := parameter_view(server_round, arrays, replies)) is not None:
        watch(view)


def _agreeing(
    strategy: Strategy,
    aggregate: Callable[[list[Message]], Aggregated],
    grid: PoolGrid,
    replies: list[Message],
    quorum: float,
) -> Aggregated:
    """Aggregate; if that fails because replies disagree in their form, without the odd ones.

    Ours say themselves which replies they can use, so their other errors are no reply's fault. What
    a user's code raises is told as it is where leaving out the odd is no cure, or most are odd.
    """
    looks = iter((names_of, forms_of))
    while True:
        try:
            return aggregate([_lent(reply) for reply in replies])
        except ENDINGS:
            raise
        except Exception as error:
            refused = isinstance(error, InconsistentMessageReplies | AggregationError)
            own = not refused and of_its_own(strategy, error)
            typo = own and isinstance(error, NameError | AttributeError | ImportError)
            if typo or (not refused and isinstance(strategy, Receiving)):
                raise
            agreeing = next((a for a in (grid.reject_unlike(replies, x) for x in looks) if a), None)
            if agreeing is None and refused:
                raise QuorumLost(
                    f"{type(strategy).__name__} refuses all replies: {error}"
                ) from None
            if agreeing is None:
                raise
            try:
                require_quorum(grid.exchanges[len(grid.exchanges) - len(replies) :], quorum)
            except QuorumLost:
                if own:
                    raise error from None
                raise
            replies = agreeing


def _lent(reply: Message) -> Message:
    """Copy a reply but for its arrays: some of Flower's strategies empty the records they read."""
    if not reply.has_content():
        return reply
    lent = copy(reply)
    lent.content = RecordDict({name: record.copy() for name, record in reply.content.items()})
    return lent


def _scalars(metrics: MetricRecord | None) -> dict[str, float]:
    if metrics is None:
        return {}
    return {k: float(v) for k, v in metrics.items() if isinstance(v, int | float)}
