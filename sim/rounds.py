"""The round loop.

Flower's own, `Strategy.start`, always runs rounds 1..N and cannot resume, stop or report; this one
calls the same five methods of a strategy, and nothing else of it.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp.strategy import Strategy

from clients.seeding import Purpose, stream
from sim.grid import Exchange, PoolGrid


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
    """

    server_round: int
    arrays: ArrayRecord
    student: dict[str, float]
    train: dict[str, float]
    evaluated: dict[str, float]
    exchanges: list[Exchange]


class QuorumLost(RuntimeError):
    """Too few usable replies to go on."""


def run_rounds(
    strategy: Strategy,
    grid: PoolGrid,
    arrays: ArrayRecord,
    *,
    rounds: int,
    seed: int,
    evaluate: Callable[[ArrayRecord], dict[str, float]],
    report: Callable[[RoundReport], None],
    evaluate_every: int = 1,
    quorum: float = 0.5,
    first_round: int = 1,
) -> ArrayRecord:
    """Run a federation.

    Args:
        strategy: Any Flower strategy.
        grid: Where its messages go.
        arrays: The global model's parameters before `first_round`.
        rounds: R, the last round.
        seed: The run's seed.
        evaluate: Measures the global model; called after every round that is evaluated.
        report: Called after each round; a checkpoint belongs here.
        evaluate_every: Evaluate each so many rounds, and after the last.
        quorum: Share of requests in (0, 1] that must get a usable reply.
        first_round: 1, or the round after the checkpoint that `arrays` came from.

    Returns:
        The global model's parameters after the last round.

    Raises:
        QuorumLost: Fewer replies than `quorum` were usable; says which failed first, and why.
    """
    strategy.summary()
    for server_round in range(first_round, rounds + 1):
        grid.begin_round(server_round)
        # Flower's sampling draws from Python's global generator.
        random.seed(int(stream(seed, Purpose.FLOWER, server_round).generate_state(1)[0]))
        try:
            # 1. Ask the cohort to train.  2. Collect its answers.
            requests = strategy.configure_train(server_round, arrays, ConfigRecord(), grid)
            replies = list(grid.send_and_receive(requests))
            _require_quorum(replies, quorum, grid.exchanges)
            # 3. Aggregate them into the global model.
            aggregated, trained = strategy.aggregate_train(server_round, replies)
            arrays = arrays if aggregated is None else aggregated
            # 4. Evaluate, on the clients and here.
            student: dict[str, float] = {}
            evaluated: MetricRecord | None = None
            if server_round % evaluate_every == 0 or server_round == rounds:
                requests = strategy.configure_evaluate(server_round, arrays, ConfigRecord(), grid)
                replies = list(grid.send_and_receive(requests))
                _require_quorum(replies, quorum, grid.exchanges)
                evaluated = strategy.aggregate_evaluate(server_round, replies)
                student = evaluate(arrays)
        except QuorumLost:
            report(RoundReport(server_round, arrays, {}, {}, {}, grid.exchanges))
            raise
        # 5. Report.
        report(
            RoundReport(
                server_round,
                arrays,
                student,
                _scalars(trained),
                _scalars(evaluated),
                grid.exchanges,
            )
        )
    return arrays


def _require_quorum(replies: Sequence[Message], quorum: float, exchanges: list[Exchange]) -> None:
    usable = sum(not reply.has_error() for reply in replies)
    if usable >= quorum * len(replies):
        return
    first = next(exchange for exchange in exchanges if exchange.failure)
    raise QuorumLost(
        f"only {usable} of {len(replies)} replies are usable, quorum is {quorum}. First failure: "
        f"client {first.client_id} ({first.architecture}), round {first.server_round}, phase "
        f"{first.phase}: {first.failure}\n{first.traceback}"
    )


def _scalars(metrics: MetricRecord | None) -> dict[str, float]:
    if metrics is None:
        return {}
    return {k: float(v) for k, v in metrics.items() if isinstance(v, int | float)}
