"""The per-client table: one row per client and round, kept as columns while it grows."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sim.engine.exchanges import Exchange
from sim.tracking.run_files import CLIENTS
from sim.workers.tasks import NOTE

CLOCK = "simulated_time_s"
"""Column that there is only where there is a virtual clock."""

IDENTITY = {
    "round": pa.int32(),
    "client": pa.int32(),
    "architecture": pa.string(),
    "request_bytes": pa.int64(),
    "reply_bytes": pa.int64(),
    "failure": pa.string(),
    CLOCK: pa.float64(),
}
"""Columns that are ours: a client's metric of such a name goes to `client_<name>`."""

MEASURES = ("num_examples", "train_loss", "accuracy", "loss")
"""Columns of the per-client table that every run has; other metrics of replies follow them."""


OF_CLIENTS = ("accuracy", "loss", "private_accuracy", "private_loss", "train_loss")
"""Per-client measures that replies bring; probes bring others."""


def client_rows(exchanges: Iterable[Exchange]) -> list[dict[str, Any]]:
    """Make one row per client of a round from all its exchanges, ordered by client.

    Args:
        exchanges: Of one round.

    Returns:
        Rows with round, client, architecture, bytes summed, the last value of each metric, the
        first failure or "", and, where there is a clock, simulated seconds summed.
    """
    rows: dict[int, dict[str, Any]] = {}
    for exchange in sorted(exchanges, key=lambda e: e.client_id):
        row = rows.setdefault(
            exchange.client_id,
            {
                "round": exchange.server_round,
                "client": exchange.client_id,
                "architecture": exchange.architecture,
                "request_bytes": 0,
                "reply_bytes": 0,
                "failure": "",
            },
        )
        row["request_bytes"] += exchange.request_bytes
        row["reply_bytes"] += exchange.reply_bytes
        row["failure"] = row["failure"] or exchange.failure
        if exchange.simulated_time_s is not None:
            row[CLOCK] = row.get(CLOCK, 0.0) + exchange.simulated_time_s
        for key, value in exchange.metrics.items():
            row[_column(key)] = value
    return list(rows.values())


def noted(exchanges: Iterable[Exchange]) -> list[str]:
    """Return the columns of what clients noted beside their metrics, sorted."""
    return sorted({_column(key) for e in exchanges for key in e.metrics if key.startswith(NOTE)})


def _column(key: str) -> str:
    """Return under which name a client's metric is in the table, or what it noted."""
    name = key.removeprefix(NOTE).replace("-", "_")
    if key.startswith(NOTE) and name in (*MEASURES, *OF_CLIENTS):
        return f"note_{name}"
    return f"client_{name}" if name in IDENTITY else name


class ClientsTable:
    """The per-client table so far. A value takes 8 bytes here, some 100 in a row of Python's."""

    def __init__(self, begun: pa.Table | None = None) -> None:
        """Begin.

        Args:
            begun: What there is already, as `since` returned it; None = nothing.
        """
        self._parts = [] if begun is None else [begun]
        self.num_rows: int = 0 if begun is None else begun.num_rows
        self._written: Path | None = None

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Add a round's rows, as `client_rows` makes them; what a row lacks is null there."""
        if rows:
            self._parts.append(_ordered(pa.Table.from_pylist(rows, schema=_schema(rows))))
            self.num_rows += len(rows)
            self._written = None

    def since(self, row: int) -> pa.Table:
        """Return the rows from this one on, 0 = all.

        Args:
            row: How many rows to leave out, >= 0.

        Returns:
            The columns of IDENTITY, MEASURES, and whatever else these rows have, by name.
        """
        kept, begins = [], 0
        for part in self._parts:
            if begins + part.num_rows > row:
                kept.append(part.slice(max(0, row - begins)))
            begins += part.num_rows
        if not kept:
            return pa.Table.from_pylist([], schema=_schema([]))
        return _ordered(pa.concat_tables(kept, promote_options="default").combine_chunks())

    def write(self, folder: Path) -> None:
        """Write the table into the run folder, unless it is there as it is.

        Whoever reads meanwhile sees the one before.
        """
        if self._written == folder:
            return
        self._parts = [self.since(0)]
        unfinished = folder / f"{CLIENTS}.unfinished"
        pq.write_table(self._parts[0], unfinished)
        os.replace(unfinished, folder / CLIENTS)
        self._written = folder


def _schema(rows: list[dict[str, Any]]) -> pa.Schema:
    there = {key for row in rows for key in row}
    others = sorted(there - IDENTITY.keys() - {*MEASURES})
    types = IDENTITY | {name: pa.float64() for name in (*MEASURES, *others)}
    return pa.schema({k: v for k, v in types.items() if k != CLOCK or CLOCK in there})


def _ordered(table: pa.Table) -> pa.Table:
    """Put the columns into the order that is documented."""
    there = {*table.column_names}
    first = [name for name in (*IDENTITY, *MEASURES) if name in there]
    return table.select([*first, *sorted(there - {*first})])
