"""Checkpoints of made-up states."""

from functools import partial
from pathlib import Path

from flwr.app import ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from sim.checkpoint.writing import Checkpoints
from sim.tracking.clients_table import ClientsTable
from sim.tracking.run_folder import FAILURES, METRICS
from sim.workers.state_serialization import freeze
from tests.federations import SEED, vector

ROWS = [{"round": 1, "client": k, "architecture": "a", "request_bytes": 3, "reply_bytes": 4,
         "failure": "", "accuracy": k / 3} for k in range(3)]  # fmt: skip


def state(value: float) -> bytes:
    """Large beside what a file says of it."""
    network = ConfigRecord({"weights": bytes(1000)})
    return freeze(RecordDict({"m": MetricRecord({"value": value}), "network": network}))


def checkpoints(
    folder: Path, seed: int = SEED, config: str = "c0ffee", kept: int = 2
) -> Checkpoints:
    return Checkpoints(folder / "checkpoint", seed, config, kept)


def no_lines(folder: Path) -> dict[Path, int]:
    return {folder / METRICS: 0, folder / FAILURES: 0}


def committed(folder: Path, kept: int = 2) -> Checkpoints:
    """Two rounds: clients 0, 1 and 3 changed in the first, 1 and 2 in the second."""
    writer = checkpoints(folder, kept=kept)
    commit = partial(writer.commit, strategy=FedAvg())
    (folder / METRICS).write_text('{"round": 1}\n{"round": 2}\n')
    lines = {folder / METRICS: 1, folder / FAILURES: 0}
    table = ClientsTable()
    table.add(ROWS)
    first = {0: state(0.1), 1: state(1.1), 3: state(3.1)}
    second = {1: state(1.2), 2: state(2.2)}
    commit(1, vector("a"), states=first, clients=table, lines=lines)
    table.add([{**ROWS[0], "round": 2, "zeal": 7.0}])
    lines[folder / METRICS] = 2
    commit(2, vector("b"), states=second, clients=table, lines=lines)
    return writer


def files_in(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
