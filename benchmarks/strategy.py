"""Flower's FedAvg, unmodified but for whom it samples: the cohort that every system gets."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from benchmarks.work import Work, cohort_of
from strategies.server.averaging import Averaging


class FixedCohort(FedAvg):
    """FedAvg on the cohorts of `work.cohort_of`, with a clock."""

    def __init__(
        self,
        work: Work,
        tick: Callable[[], None],
        nodes: Callable[[Grid], Sequence[int]],
        *,
        name_client: bool,
    ) -> None:
        """Prepare the strategy.

        Args:
            work: What to do.
            tick: Called at the start of every round.
            nodes: Gives the node that stands for client 0, 1, ...
            name_client: Tell each node which client it is; else all get one and the same content.
        """
        super().__init__(fraction_evaluate=0.0)
        self._work = work
        self._tick = tick
        self._nodes = nodes
        self._name_client = name_client

    def configure_train(
        self, server_round: int, arrays: Any, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the round's cohort to train."""
        self._tick()
        nodes = self._nodes(grid)
        cohort = cohort_of(self._work, server_round)
        settings = {"server-round": server_round}
        shared = RecordDict({"arrays": arrays, "config": ConfigRecord({**settings})})
        return [
            Message(
                RecordDict({"arrays": arrays, "config": ConfigRecord({**settings, "client": k})})
                if self._name_client
                else shared,
                nodes[k],
                "train",
            )
            for k in cohort
        ]


class FoldedCohort(FixedCohort):
    """The same for our engine, which hands it partial means instead of every client's answer."""

    intake = Averaging.intake
    weigh_by = "examples"
