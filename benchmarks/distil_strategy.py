"""Our strategies of the distillation benchmark: what a user of Stillhouse writes in a file."""

from collections.abc import Iterable
from functools import partial
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from benchmarks.distil_work import PROXY_BATCH, Watch
from clients.handlers.base import SERVER_ROUND
from clients.handlers.peer_targets import train_targets
from clients.messages.arrays import write_arrays
from clients.messages.requests import CONFIG, TARGETS
from clients.training.local_context import LocalContext
from clients.training.losses import kl
from strategies.aggregation.ensemble import Ensemble
from strategies.server.distillation import DistillationStrategy

WATCH = Watch()
"""Of this process: a strategy is built by `run.py`, out of its caller's reach."""


class Timed(DistillationStrategy):
    """Distillation as it is, with a watch: every teacher answers the test set too."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Note that a round begins."""
        WATCH.begin("clients")
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Note that the clients are done."""
        WATCH.begin("distil")
        return super().aggregate_train(server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Note that the student is taught."""
        WATCH.begin("evaluate")
        return super().configure_evaluate(server_round, arrays, config, grid)


class StudentOnly(Timed):
    """The same, but only the student is measured, as in every other system."""

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask nobody."""
        WATCH.begin("evaluate")
        return []


class Digesting(StudentOnly):
    """DS-FL: before they train again clients imitate the soft labels of the round before."""

    def __init__(self, **others: Any) -> None:
        super().__init__(**others)
        numbers = {"epochs": self.digest_epochs, "batch_size": PROXY_BATCH}
        self._digest = train_targets(partial(kl, temperature=1.0), numbers)
        self._told: ArrayRecord | None = None
        self.handlers = (*self.handlers, self._digest)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Have the clients digest; then ask them to train and to answer."""
        requests = super().configure_train(server_round, arrays, config, grid)
        if self._told is not None:
            content = RecordDict({CONFIG: ConfigRecord({SERVER_ROUND: server_round})})
            content[TARGETS] = self._told
            nodes = [request.metadata.dst_node_id for request in requests]
            list(grid.send_and_receive([Message(content, k, self._digest.kind) for k in nodes]))
        return requests

    def _teach(
        self, server_round: int, local: LocalContext, first: Ensemble
    ) -> tuple[list[float], list[Ensemble | None]]:
        """Keep what the student is taught."""
        ids = self.split.chunks[0][first.covered_inputs.numpy()]
        told = {"proxy-ids": ids, "targets": first.targets_by_input.numpy()}
        self._told = write_arrays(told)
        return super()._teach(server_round, local, first)
