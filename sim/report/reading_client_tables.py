"""The Parquet tables of a run folder: what they say of each client.

Apart from reading.py, since a run that is not over writes them anew every few rounds: what cannot
be read then is left out, with a note.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sim.report.drawing import short
from sim.report.reading import ReportError, Run
from sim.tracking.run_files import CLIENTS, PARTITION, PARTITION_SUMMARY

MOST_SHOWN = 30
"""Letters of the names of whoever a client's examples are."""


@dataclass(frozen=True)
class ClientTables:
    """What a run tells of each client.

    Attributes:
        clients: Columns of `clients.parquet`, [rows] each; may lack any.
        partition: The same of `partition.parquet`.
        notes: What a reader must know if the run is not over.
    """

    clients: Mapping[str, Any]
    partition: Mapping[str, Any]
    notes: Sequence[str]


def client_tables(run: Run, of_clients: Sequence[str], of_partition: Sequence[str]) -> ClientTables:
    """Read a run's Parquet tables.

    Args:
        run: Any run; while it is not over it may be writing a table at this moment.
        of_clients: The wanted columns of `clients.parquet`.
        of_partition: The wanted columns of `partition.parquet`.

    Returns:
        What there is of them.

    Raises:
        ReportError: A table of a run that is over cannot be read.
    """
    found: dict[str, dict[str, Any]] = {}
    notes = []
    for name, wanted in ((CLIENTS, of_clients), (PARTITION, of_partition)):
        try:
            found[name] = read_table(run.folder / name, wanted)
        except ReportError:
            if run.result is not None:
                raise
            notes.append(f"{name} cannot be read just now: it is left out.")
    if run.result is None and CLIENTS in found:
        notes += _how_old(found[CLIENTS], run)
    return ClientTables(_named(run, found.get(CLIENTS, {})), found.get(PARTITION, {}), notes)


def _named(run: Run, table: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add a column `owner`, whose a client's examples are, if the folder says it."""
    try:
        owners = json.loads((run.folder / PARTITION_SUMMARY).read_text(encoding="utf-8"))["owners"]
        names = [short(" + ".join(map(str, each)), MOST_SHOWN) for each in owners]
    except (OSError, ValueError, KeyError, TypeError):  # most runs have none; a folder is anybody's
        return table
    if "client" not in table or table["client"].max(initial=-1) >= len(names):  # of another run
        return table
    return {**table, "owner": np.array(names, dtype=object)[table["client"]]}


def _how_old(table: Mapping[str, Any], run: Run) -> list[str]:
    last = int(table["round"].max()) if "round" in table else 0
    if last >= run.rounds:
        return []
    if not last:
        return [f"{CLIENTS} has no round yet: maps over rounds are left out."]
    return [
        f"{CLIENTS} was last written after round {last} of {run.rounds}: what is shown of the "
        "clients is as of then."
    ]


def architectures_of(table: Mapping[str, Any]) -> dict[int, str]:
    """Tell each client's architecture, by its id; nothing if the table does not."""
    if not {"client", "architecture"} <= table.keys():
        return {}
    clients, at = np.unique(table["client"], return_index=True)
    return dict(zip(clients.tolist(), table["architecture"][at].tolist(), strict=True))


def descriptions_of(table: Mapping[str, Any]) -> dict[int, str]:
    """Describe each client, by its id: its architecture, and whose its examples are."""
    kinds = architectures_of(table)
    if "owner" not in table:
        return kinds
    owners = dict(zip(table["client"].tolist(), table["owner"].tolist(), strict=True))
    return {c: ", ".join(filter(None, (kinds.get(c), owner))) for c, owner in owners.items()}


def read_table(path: Path, wanted: Sequence[str]) -> dict[str, Any]:
    """Read columns of a Parquet table.

    Args:
        path: The file; it need not exist.
        wanted: The columns' names.

    Returns:
        Arrays by name, [rows] each, null as NaN in columns of floats; without the columns that
        there are not, and nothing if there is no file or no row.

    Raises:
        ReportError: It is no Parquet table.
    """
    if not path.exists():
        return {}
    try:
        names = pq.read_schema(path).names
        there = [name for name in dict.fromkeys(wanted) if name in names]
        table = pq.read_table(path, columns=there)
    except (pa.ArrowException, OSError) as error:
        raise ReportError(f"{path}: no Parquet table: {error}") from error
    return {name: table[name].to_numpy() for name in there} if len(table) else {}
