"""Distillation on Flower's simulation engine, with a FedMD-like strategy as its users write one.

Two actors of one CPU and one thread; the server distils and evaluates on as many threads as there
are workers, while those idle. Nothing is logged, telemetry is off.

    python -m benchmarks.distil_flower --workers 2 --clients 20 --proxy 1000
"""

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy
from flwr.simulation import run_simulation

from benchmarks import distil_flower_client
from benchmarks.distil_plain import Tensors, accuracy, distil
from benchmarks.distil_work import Federation, Watch, Work, command, federation_of
from benchmarks.flower import all_nodes, resources


class FedMD(Strategy):
    """Every client answers; the student, and with "digest" the clients, imitate the mean."""

    def __init__(self, work: Work, federation: Federation, watch: Watch) -> None:
        self.student = federation.student()
        self.data = Tensors(federation)
        self.bytes_sent = 0
        self._work, self._watch = work, watch
        self._targets: ArrayRecord | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every client, and tell it the soft labels of the round before."""
        self._watch.begin("clients")
        told = {} if self._targets is None else {"targets": self._targets}
        messages = []
        for client, node in enumerate(all_nodes(grid, self._work.clients)):
            about = ConfigRecord({"server-round": server_round, "client": client})
            messages.append(Message(RecordDict({"config": about, **told}), node, "train"))
            self.bytes_sent += sum(record.count_bytes() for record in told.values())
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the clients' probabilities and let the student imitate them."""
        self._watch.begin("distil")
        total, came = torch.zeros(()), 0
        for reply in replies:
            if reply.has_error():
                raise RuntimeError(f"a client failed: {reply.error}")
            record: Any = reply.content["logits"]
            self.bytes_sent += record.count_bytes()
            total = total + record.to_torch_state_dict()["logits"].softmax(1)
            came += 1
        targets = total / came
        if self._work.digests:
            self._targets = ArrayRecord({"targets": targets})
        distil(self.student, self.data, targets, server_round)
        return ArrayRecord(self.student.state_dict()), None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask no client."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Have nothing from clients."""
        return None

    def summary(self) -> None:
        """Say nothing."""


def run(work: Work, watch: Watch, workers: int) -> tuple[list[float], float]:
    """Run Flower's simulation.

    Args:
        work: What to do.
        watch: Notes the rounds.
        workers: Ray actors, one client each at a time; and threads of the server.

    Returns:
        The student's accuracy after each round; bytes of arrays a round, both ways.
    """
    logging.getLogger("flwr").setLevel(logging.ERROR)
    os.environ[distil_flower_client.WORK] = json.dumps(asdict(work))
    found: list[float] = []
    sent: list[int] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Any) -> None:
        torch.set_num_threads(workers)
        strategy = FedMD(work, federation_of(work), watch)

        def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            if server_round == 0:
                return None
            watch.begin("evaluate")
            found.append(accuracy(strategy.student, strategy.data))
            watch.end_round()
            return MetricRecord({"accuracy": found[-1]})

        initial = ArrayRecord(strategy.student.state_dict())
        strategy.start(grid, initial, num_rounds=work.rounds, evaluate_fn=evaluate)
        sent.append(strategy.bytes_sent)

    client = distil_flower_client.app
    run_simulation(server, client, work.clients, backend_config=resources(workers))
    return found, sent[0] / work.rounds


if __name__ == "__main__":
    command(__doc__, "workers", run)
